/* A wire: a process between two plugs of the lab's fabric, which takes what arrives at one
   and sends it out of the other, later, twice, spoilt, or not at all.

     pcwire FIRST SECOND [DIVISOR]     interface indexes of the plugs, and how many times less
                             memory than it would like it takes for what arrives (66 MB); descriptor
                             3 is the socket to who started it (lab/helper.h), with messages of
                             lab/protocol.h

   It says PC_STARTED when its rings are made, or PC_ERROR, both with request 0, and then
   answers PC_WIRE_* requests. When the socket is closed it goes on as it was, since a container may
   be kept; it ends when a plug is gone. */
#ifndef PC_WIRE_WIRE_H
#define PC_WIRE_WIRE_H

#include "../common/message.h"
#include "lane.h"

enum { ENDS = 2, CONTROL = 3 };

struct wire {
    int plug[ENDS];
    struct lane lane[ENDS]; /* by the end that the frames travel to */
    struct hosts *hosts;
    struct flows *flows;
    int control;            /* -1: closed */
    int ready;              /* epoll: descriptors that have something */
    int started;
};

int wire_open(struct wire *wire, const int plug[ENDS], unsigned divisor, struct pc_failure *failure);
/* Frames are taken from now on. */
int wire_start(struct wire *wire, struct pc_failure *failure);
/* Passes frames until there is a message on the control socket or on another descriptor (-1: none),
   or the time is over. Returns a mask: 1 control, 2 the other; 4: a plug is gone. */
int wire_run(struct wire *wire, int other, int64_t until);
/* Sends all that has arrived and all that is delayed. */
void wire_drain(struct wire *wire);

/* Does what a message asks for and answers it; returns 0 when that was to end. */
int control_serve(struct wire *wire, struct pc_in *in);
/* Sends a frame of our own each way, from host to host, over these two sockets of packet(7), and
   waits until it has come through this wire, once. */
int canary_fly(struct wire *wire, const int sockets[ENDS], struct pc_failure *failure);

#endif
