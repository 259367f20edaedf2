/* One netlink request at a time: built, sent, its answer awaited. */
#ifndef PC_REQUEST_H
#define PC_REQUEST_H

#include <linux/netlink.h>
#include <stddef.h>
#include <stdint.h>

struct request {
    union {
        struct nlmsghdr head;
        char bytes[1024];
    };
};

/* A netlink socket of the namespace that the caller is in now; -1 and errno. */
int rq_open(int protocol);
/* Starts a request with its body; NLM_F_REQUEST and NLM_F_ACK are added. */
void rq_start(struct request *request, unsigned type, unsigned flags, const void *body, size_t length);
void rq_put(struct request *request, unsigned type, const void *data, size_t length);
void rq_text(struct request *request, unsigned type, const char *text);
void rq_number(struct request *request, unsigned type, uint32_t value);
/* Opens a nest; its place is given back to rq_close. `body` may be empty. */
size_t rq_nest(struct request *request, unsigned type, const void *body, size_t length);
void rq_close(struct request *request, size_t nest);
/* Sends it and waits for the answer: 0, or -1 with the kernel's errno. */
int rq_ask(int fd, struct request *request);
/* Sends a question and returns the one message that answers it, in `buffer`; NULL and errno. */
struct nlmsghdr *rq_query(int fd, struct request *request, void *buffer, size_t size);
/* Like rq_ask, as one transaction of nf_tables. */
int rq_ask_nft(int fd, struct request *request);

/* requests that several probes make (links.c) */

/* Makes an interface of a kind (peer, when not NULL: the other end of a veth, which is
   placed into the namespace peer_netns unless that is -1), or changes one. */
int link_make(int fd, const char *name, const char *kind, const char *peer, int peer_netns);
int link_up(int fd, const char *name);
/* Waits until the operational state of two interfaces is UP; their flag alone does not mean that. */
int links_usable(int fd, const char *name, int other_fd, const char *other_name);

#endif
