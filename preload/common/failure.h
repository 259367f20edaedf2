/* What went wrong, in the parts that an error message is made of. */
#ifndef PC_FAILURE_H
#define PC_FAILURE_H

#include <stdint.h>

struct pc_failure {
    const char *step;   /* "mount overlay on" */
    const char *remedy; /* or NULL */
    int error;          /* errno */
    char object[256];   /* "/etc" */
};

/* Records the step with the present errno; returns -1, so that callers can return it. */
int pc_fail(struct pc_failure *failure, const char *step, const char *object);
/* The same, with a remedy and an errno of the caller's choice. */
int pc_fail_as(struct pc_failure *failure, const char *step, const char *object, int error, const char *remedy);
int pc_send_failure(int fd, uint32_t request, const struct pc_failure *failure);

#endif
