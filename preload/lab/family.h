/* All that descends from this process, as /proc shows it. */
#ifndef PC_FAMILY_H
#define PC_FAMILY_H

/* Kills all of it, as far as it can be seen at once. What is left, since somebody else's
   child was not there yet when we looked, becomes our child (we are a subreaper): call again. */
void family_kill(void);

#endif
