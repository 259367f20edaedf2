/* The words between pytest and the lab; container/protocol.py says the same in Python,
   and a test compares the two. README.md tells the conversation.

   Every message is one SOCK_SEQPACKET datagram: a header, then fields. Integers are in
   the machine's byte order (both sides are the same machine). Descriptors travel beside
   it (SCM_RIGHTS). A message larger than PC_INLINE_MAX goes, header apart, into a memfd
   that is the first descriptor, with PC_FLAG_BODY_IN_FD set. */
#ifndef PC_PROTOCOL_H
#define PC_PROTOCOL_H

#include <stdint.h>

enum { PC_VERSION = 1, PC_INLINE_MAX = 32768, PC_BODY_MAX = 8 << 20, PC_FDS_MAX = 64 };
enum { PC_FLAG_BODY_IN_FD = 1 };

struct pc_header {
    uint16_t version; /* PC_VERSION; another one is answered by an error and the end */
    uint16_t op;      /* enum pc_op */
    uint16_t flags;
    uint16_t fds;     /* how many descriptors come with it, the body's included */
    uint32_t request; /* chosen by who asks, repeated in the answer */
    uint32_t length;  /* of the fields, wherever they are */
};

struct pc_field {
    uint32_t type;   /* enum pc_field_type */
    uint32_t length; /* of the value, which follows at once, without padding */
};

enum pc_op {
    /* answers */
    PC_OK = 0,
    PC_ERROR = 1,   /* STEP, OBJECT, ERRNO, REMEDY */
    PC_STARTED = 2, /* lab: PID, LEVEL, REASON, IDS. command: PID (inside) + credentials (outside) */
    PC_EXITED = 3,  /* command: STATUS */
    PC_TREE_DEAD = 4,
    /* to the lab */
    PC_CREATE = 16, /* per container NAME first, then its own fields; LINK wires the two */
    PC_END = 17,    /* ID, any number of them */
    PC_LINK = 18,   /* LINK, ACTION, ENDS */
    PC_MOUNT = 19,
    PC_HELPER = 20,
    PC_LISTENER = 21,
    PC_KEEP = 22,
    /* to a container's agent */
    PC_EXEC = 32,   /* fds: control, stdin, stdout, stderr, extra ones; ARG.. ENV.. CWD USER FD_NUMBER.. */
    PC_SOCKET = 33, /* FAMILY, TYPE, PROTOCOL -> one fd */
    PC_NETNS = 34,  /* -> one fd, of the network namespace */
    PC_RENAME = 35,
    /* to a command's watcher, over the control fd of its PC_EXEC */
    PC_SIGNAL = 48,    /* SIGNAL: to the process that was asked for */
    PC_KILL_TREE = 49, /* to it and to all that it started -> PC_TREE_DEAD */
};

enum pc_field_type {
    PC_F_STEP = 1, PC_F_OBJECT, PC_F_ERRNO, PC_F_REMEDY,
    PC_F_PID, PC_F_LEVEL, PC_F_REASON, PC_F_IDS, PC_F_STATUS, PC_F_ID,
    PC_F_NAME, PC_F_HOSTS, PC_F_NETWORK, PC_F_INTERFACE, PC_F_MAC, PC_F_IP4, PC_F_IP6,
    PC_F_LINK, PC_F_ACTION, PC_F_ENDS,
    PC_F_ARG, PC_F_ENV, PC_F_CWD, PC_F_USER, PC_F_FD_NUMBER,
    PC_F_FAMILY, PC_F_TYPE, PC_F_PROTOCOL, PC_F_SIGNAL,
};

enum pc_network { PC_NETWORK_OWN = 0, PC_NETWORK_HOST = 1 };
enum pc_action { PC_CUT = 0, PC_HEAL = 1, PC_UNPLUG = 2, PC_PLUG = 3 };

#endif
