/* Ending all that a process has started. */
#ifndef PCCOW_TREE_H
#define PCCOW_TREE_H

/* Kills all descendants of this process, a child subreaper whose main thread calls this, and waits for them; they can
   fork in the meantime, but not for ever: each round's orphans become our children. Gives up after some seconds. */
void tree_kill(void);

#endif
