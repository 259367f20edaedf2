/* Messages of lab/protocol.h: building, sending, receiving, taking apart.
   No allocation: one static buffer a process for what comes in. */
#ifndef PC_MESSAGE_H
#define PC_MESSAGE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "../lab/protocol.h"

struct pc_in {
    struct pc_header header;
    int fds[PC_FDS_MAX]; /* the body's descriptor is taken out; the owner closes the rest */
    int fd_count;
    char *body; /* fields; one more byte behind them may be written */
    size_t length;
    size_t mapped; /* bytes to unmap, or 0 when the body is in the static buffer */
};

/* 1: a message is there. 0: end of file. -1: errno (EPROTO: not of our form). */
int pc_receive(int fd, struct pc_in *in);
/* The same with flags of recvmsg(2): MSG_DONTWAIT makes it EAGAIN when there is none. */
int pc_receive_with(int fd, struct pc_in *in, int flags);
/* Closes the descriptors that were not taken (those still >= 0), frees the body. */
void pc_release(struct pc_in *in);

struct pc_cursor {
    char *at, *end;
    struct pc_field field; /* of the value that was handed out last */
    struct pc_field ahead;
    int more;
};

/* Walks over the fields, once: each value is made a C string by writing a zero behind it.
   pc_next returns the value, with cursor->field telling type and length; NULL at the end. */
void pc_fields(struct pc_cursor *cursor, struct pc_in *in);
char *pc_next(struct pc_cursor *cursor);
/* The same without a zero behind the value, so that the message can be read once more. */
char *pc_peek(struct pc_cursor *cursor);
uint32_t pc_u32(const struct pc_cursor *cursor, const char *value);

struct pc_out {
    struct pc_header header;
    size_t length;
    char fields[1024];
};

void pc_begin(struct pc_out *out, uint16_t op, uint32_t request);
/* Appends a field; what does not fit is cut off, which only texts of errors can be. */
void pc_put(struct pc_out *out, uint32_t type, const void *value, size_t length);
void pc_put_u32(struct pc_out *out, uint32_t type, uint32_t value);
void pc_put_text(struct pc_out *out, uint32_t type, const char *text);
/* Sends with descriptors and, when pid is not 0, credentials that carry that pid. */
int pc_send(int fd, struct pc_out *out, const int *fds, int fd_count, pid_t pid);
int pc_send_error(int fd, uint32_t request, const char *step, const char *object, int error, const char *remedy);

#endif
