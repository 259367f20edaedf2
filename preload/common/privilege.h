/* Whether namespaces need a user namespace first. */
#ifndef PC_PRIVILEGE_H
#define PC_PRIVILEGE_H

/* Whether this process may make and fill namespaces without a user namespace of its own. */
int pc_is_privileged(void);

#endif
