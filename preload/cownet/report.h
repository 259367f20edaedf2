/* What the supervisor says: to the process that the starter sees, and to the trees' log. */
#ifndef PCCOW_REPORT_H
#define PCCOW_REPORT_H

struct cow_set;

void report_start(int line);
void report_stop(void);
/* A refused call, as libpccow writes it: "CALL PATH: REASON". To the trees' log if they have one, else to standard error. */
void report_refusal(const struct cow_set *set, const char *call, const char *path, const char *reason);
void report_status(int status);
/* The command cannot be run: what to say, and what to exit with. */
void report_failure(int status, const char *text);

#endif
