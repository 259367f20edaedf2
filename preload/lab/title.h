/* What ps(1) shows of our processes: inside a container they stand among its daemons. */
#ifndef PC_TITLE_H
#define PC_TITLE_H

/* Notes where the arguments are. */
void title_keep(int argc, char **argv);
/* Writes the name over them: nothing may refer to them any more. Done once, by the lab, so that
   its children share the page. */
void title_shorten(const char *name);

#endif
