/* The words between pytest and the lab; lab/protocol.py says the same in Python,
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
    PC_CREATE = 16, /* per container NAME first, then its own fields; LINK wires two */
    PC_END = 17,    /* ID, any number of them */
    PC_MOUNT = 19,  /* ID, KIND, and as mount_request.h says: SOURCE, TARGET, OPTIONS.., FLAGS, VALUE.., fd -> VALUE.., fds */
    PC_HELPER = 20,     /* ARG.., ID (else in the fabric); fds: program, its control socket -> PID, a pidfd */
    PC_KEEP = 22,       /* ACTION, ID..; fds: a listening socket, a memfd with what others are told, per ID its agent's */
    /* over a connection to that listening socket, one a connection */
    PC_KEPT_LIST = 23,  /* ID: only those above it -> IDS, at most 240; the memfd */
    PC_KEPT_ENTER = 24, /* ID -> its agent's socket */
    PC_KEPT_END = 25,   /* ID, any number of them; none: all */
    /* to the lab again */
    PC_ROOTFS = 26,     /* PATH of a directory, or none: an empty one, to be filled; SOURCE, TARGET.., FLAGS, fd: the stage that PATH is on -> ROOTFS, the empty one's fd */
    PC_ROOTFS_END = 27, /* ROOTFS */
    PC_LIMIT = 28,      /* ID, NAME; fds: directories: the control group NAME in each goes with it */
    PC_FABRIC = 29,     /* FAMILY, TYPE, PROTOCOL -> one fd, of the fabric's network */
    PC_NETLINK = 30,    /* ID.. -> for each a netlink socket of its network, which all who ask share */
    PC_COW = 56,        /* as cow.h says: ID, layers: SOURCE (of the machine), before it VALUE (its device and inode), or
                           TARGET (of the stage).., PATH, OPTIONS.., FLAGS;
                           fd: the stage, if there is one -> fds: the tree, the stage, and the store where there is one */
    PC_COW_END = 57,    /* ID; fd: the stage */
    /* to a container's agent */
    PC_EXEC = 32,   /* fds: control, stdin, stdout, stderr, extra ones; ARG.. ENV.. CWD USER FD_NUMBER.. VALUE (clock) */
    PC_SOCKET = 33, /* FAMILY, TYPE, PROTOCOL -> one fd */
    PC_NETNS = 34,  /* -> one fd, of the network namespace */
    PC_RENAME = 35, /* NAME, HOSTS: what the container is called from now on */
    PC_EXPOSE = 36, /* fd: a listening socket; PORT, ADDRESS..: forwards what comes there to the first that answers */
    PC_OPEN = 37,   /* PATH, KIND, FLAGS (of open(2)), MODE, USER, TARGET, VALUE (time): as the container resolves -> one fd */
    PC_PTY = 38,    /* USER; fd: where to answer, or none -> two fds, the master and the terminal */
    /* to a command's watcher, over the control fd of its PC_EXEC */
    PC_SIGNAL = 48,    /* SIGNAL: to the process that was asked for */
    PC_KILL_TREE = 49, /* to it and to all that it started -> PC_TREE_DEAD */
    /* to a wire, which is a helper */
    PC_WIRE_HOSTS = 64, /* VALUE: a number; ADDRESS..: whose they are, of a subnet with the prefix's length behind it; the next one */
    PC_WIRE_START = 65, /* from now on it takes frames */
    PC_WIRE_SET = 66,   /* ENDS: nothing passes to them; FLAGS 1: forget conversations; VALUE: a rule; SOURCE.. TARGET..: for whom; the next rule */
    PC_WIRE_COUNT = 67, /* -> VALUE, what happened to packets towards end 0, and another one, towards end 1 */
    PC_WIRE_PROVE = 68, /* fds: a packet socket of each host */
    PC_WIRE_END = 69,   /* -> as PC_WIRE_COUNT: sends what is delayed, and ends */
};

enum pc_field_type {
    PC_F_STEP = 1, PC_F_OBJECT, PC_F_ERRNO, PC_F_REMEDY,
    PC_F_PID, PC_F_LEVEL, PC_F_REASON, PC_F_IDS, PC_F_STATUS, PC_F_ID,
    PC_F_NAME, PC_F_HOSTS, PC_F_NETWORK, PC_F_INTERFACE, PC_F_MAC, PC_F_IP4, PC_F_IP6,
    PC_F_LINK, PC_F_ACTION, PC_F_ENDS,
    PC_F_ARG, PC_F_ENV, PC_F_CWD, PC_F_USER, PC_F_FD_NUMBER,
    PC_F_FAMILY, PC_F_TYPE, PC_F_PROTOCOL, PC_F_SIGNAL,
    PC_F_TERMINAL, PC_F_PORT, PC_F_ADDRESS,
    PC_F_ROOTFS, PC_F_SOURCE, PC_F_TARGET, PC_F_KIND, PC_F_OPTIONS, PC_F_FLAGS, PC_F_PATH, PC_F_MODE,
    PC_F_CAPABILITIES, PC_F_RLIMIT, PC_F_VALUE, PC_F_SETTING,
};

enum pc_network { PC_NETWORK_OWN = 0, PC_NETWORK_HOST = 1 };
enum pc_keep { PC_PUBLISH = 0, PC_DETACH = 1 };
enum pc_mount {
    PC_MOUNT_BIND = 0, PC_MOUNT_TMPFS = 1, PC_MOUNT_OVERLAY = 2, PC_MOUNT_DEVPTS = 3,
    PC_MOUNT_LOOK = 4, PC_MOUNT_CHANGE = 5, PC_MOUNT_RESIZE = 6, PC_MOUNT_FILL = 7, PC_MOUNT_UNMOUNT = 8,
};
enum pc_mount_flag {
    PC_FLAG_READONLY = 1, PC_FLAG_NOEXEC = 2, PC_FLAG_CLEAR = 4, PC_FLAG_RECURSIVE = 8, PC_FLAG_INODES = 16, PC_FLAG_ITSELF = 32,
};
enum pc_file { PC_FILE_OPEN = 0, PC_FILE_DIRECTORY = 1, PC_FILE_LINK = 2 };

#endif
