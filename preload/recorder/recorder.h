/* The words between pytest and the recorder; traffic/recorder.py says the same in Python,
   and a test compares the two. Messages are those of lab/protocol.h, on descriptor 3.

   The recorder runs in the lab's fabric, where every host's interface has its plug: what
   comes in at a plug is what the host has sent, so one packet socket sees each frame of all
   hosts once. It copies the newest frames of each plug into a store of a bounded size. */
#ifndef PC_RECORDER_H
#define PC_RECORDER_H

#include <stddef.h>
#include <stdint.h>

enum { RECORDER_CONTROL = 3 };

enum recorder_op {
    RECORDER_READY = 64,  /* to pytest, once: it records from now on */
    RECORDER_READ = 65,   /* ID.. (interface indexes), VALUE: ns since 1970, most frames of each (0: all) -> VALUE: frames seen, frames lost; a memfd of records not older than that */
    RECORDER_FORGET = 66, /* ID..: gives their memory back; no answer */
    RECORDER_TAP = 67,    /* VALUE: bytes at most; fd: a packet socket -> ID, a memfd of records that grows */
    RECORDER_SYNC = 68,   /* ID of a tap -> VALUE: bytes in its memfd, frames lost; all that its socket had is in there */
    RECORDER_UNTAP = 69,  /* ID of a tap; no answer */
    RECORDER_EXPORT = 70, /* as READ -> the same; the memfd has the frames by time, as blocks of a pcapng file whose interfaces are the ID.. in their order */
};

/* How a frame went by, from where it was seen. A gap is no frame: what the interface has sent up to its
   time, and not before what was asked for, is not among the records. */
enum recorder_way { RECORDER_IN = 0, RECORDER_OUT = 1, RECORDER_GAP = 2 };

/* Before each frame; the next record begins at the next multiple of 8. */
struct record {
    uint64_t time; /* ns since 1970, the kernel's */
    uint32_t interface;
    uint32_t captured; /* bytes that follow */
    uint32_t length;   /* bytes that the frame had */
    uint32_t way;
};

/* A frame as the kernel hands it out. */
struct frame {
    struct record record;
    const uint8_t *bytes;
    int tagged; /* the kernel has taken a VLAN tag out of it, which was: */
    uint16_t tag_protocol, tag;
};

static inline size_t record_size(size_t captured)
{
    return (sizeof(struct record) + captured + 7) & ~(size_t)7;
}

/* Writes the record at `to`, which has room for record_size(captured + 4): with its tag. */
size_t record_write(uint8_t *to, const struct frame *frame);

#endif
