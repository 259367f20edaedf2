/* The threads that serve notified calls. One takes call after call: handing each to another thread would triple its time.
   But a call may block (open of a FIFO waits for its other end, which is opened by another notified call), so the first
   thread looks on: when one is busy with the same call for long, another takes its place. */
#ifndef PCCOW_POOL_H
#define PCCOW_POOL_H

/* Starts the first threads. Returns 0, or -1 with errno. */
int pool_start(int listener);
/* A descriptor that becomes readable when the pool wants to be looked at. */
int pool_descriptor(void);
/* Looks at the threads; returns after how many ms to do so again. To be called at least that often, and when the
   descriptor is readable. */
int pool_look(void);

#endif
