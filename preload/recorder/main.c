/* The recorder: keeps the newest frames of every host, and captures for tests. It is started
   by the lab, in its fabric, and lives until pytest closes the line to it or the lab ends. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../common/failure.h"
#include "../common/message.h"
#include "export.h"
#include "recorder.h"
#include "ring.h"
#include "tap.h"
#include "track.h"

enum { MIB = 1 << 20, SNAPLEN = 256, TOTAL_MIB = 256, DRAINS_MOST = 64 };

static struct ring ring = { .fd = -1 };

static void keep(void *context, const struct frame *frame)
{
    (void)context;
    track_add(frame);
}

static uint64_t number(const struct pc_cursor *cursor, const char *value)
{
    uint64_t wide = 0;
    if (cursor->field.length == sizeof wide)
        memcpy(&wide, value, sizeof wide);
    return wide;
}

static void answer(struct pc_out *out, const int *fds, int count)
{
    if (pc_send(RECORDER_CONTROL, out, fds, count, 0) < 0 && errno != EMSGSIZE)
        _exit(0); /* nobody is there any more */
}

static void put_numbers(struct pc_out *out, uint64_t first, uint64_t second)
{
    pc_put(out, PC_F_VALUE, &first, sizeof first);
    pc_put(out, PC_F_VALUE, &second, sizeof second);
}

static void read_export(struct export *export, struct pc_in *in)
{
    struct pc_cursor cursor;
    int values = 0;
    *export = (struct export){ .count = 0 };
    pc_fields(&cursor, in);
    for (char *value; (value = pc_next(&cursor));) {
        if (cursor.field.type == PC_F_VALUE)
            *(values++ ? &export->most : &export->since) = number(&cursor, value);
        else if (cursor.field.type == PC_F_ID && export->count < EXPORT_MAX)
            export->interface[export->count++] = pc_u32(&cursor, value);
    }
}

static void serve_read(struct pc_in *in)
{
    static struct export export;
    struct pc_out out;
    read_export(&export, in);
    if (ring.fd >= 0)
        ring_flush(&ring, keep, NULL);
    export.fd = memfd_create("poor-container-frames", MFD_CLOEXEC);
    const int blocks = in->header.op == RECORDER_EXPORT;
    if (export.fd < 0 || (blocks ? export_blocks(&export) : export_records(&export)) < 0) {
        pc_send_error(RECORDER_CONTROL, in->header.request, "hand out", "recorded frames", errno, NULL);
    } else {
        pc_begin(&out, PC_OK, in->header.request);
        put_numbers(&out, ring.seen, ring.lost);
        answer(&out, &export.fd, 1);
    }
    if (export.fd >= 0)
        close(export.fd);
}

static void serve_forget(struct pc_in *in)
{
    struct pc_cursor cursor;
    pc_fields(&cursor, in);
    for (char *value; (value = pc_next(&cursor));)
        if (cursor.field.type == PC_F_ID)
            track_forget(pc_u32(&cursor, value));
}

static void serve_tap(struct pc_in *in)
{
    struct pc_cursor cursor;
    struct pc_out out;
    uint64_t most = 0;
    uint32_t interface = 0, flags = 0;
    pc_fields(&cursor, in);
    for (char *value; (value = pc_next(&cursor));) {
        if (cursor.field.type == PC_F_VALUE)
            most = number(&cursor, value);
        else if (cursor.field.type == PC_F_ID)
            interface = pc_u32(&cursor, value);
        else if (cursor.field.type == PC_F_FLAGS)
            flags = pc_u32(&cursor, value);
    }
    errno = EPROTO;
    struct tap *tap = in->fd_count == 1 ? tap_add(in->fds[0], interface, flags, most) : NULL;
    if (!tap) {
        pc_send_error(RECORDER_CONTROL, in->header.request, "capture at", "a packet socket", errno, errno == EMFILE ? "close captures that are over" : NULL);
        return;
    }
    in->fds[0] = -1; /* it is the tap's now */
    pc_begin(&out, PC_OK, in->header.request);
    pc_put_u32(&out, PC_F_ID, tap->id);
    answer(&out, &tap->file, 1);
}

static void serve_sync(struct pc_in *in)
{
    struct pc_cursor cursor;
    struct pc_out out;
    pc_fields(&cursor, in);
    const char *value = pc_next(&cursor);
    struct tap *tap = value ? tap_find(pc_u32(&cursor, value)) : NULL;
    if (!tap) {
        pc_send_error(RECORDER_CONTROL, in->header.request, "read", "a capture", ENOENT, "it is over");
        return;
    }
    for (int i = 0; i < DRAINS_MOST && tap_drain(tap); i++)
        continue;
    pc_begin(&out, PC_OK, in->header.request);
    put_numbers(&out, tap->size, tap->lost);
    answer(&out, NULL, 0);
}

static void serve_untap(struct pc_in *in)
{
    struct pc_cursor cursor;
    pc_fields(&cursor, in);
    const char *value = pc_next(&cursor);
    struct tap *tap = value ? tap_find(pc_u32(&cursor, value)) : NULL;
    if (tap)
        tap_end(tap);
}

static void serve(void)
{
    struct pc_in in;
    const int got = pc_receive(RECORDER_CONTROL, &in);
    if (got == 0 || (got < 0 && errno != EMFILE && errno != EPROTO))
        _exit(0); /* pytest has closed its end */
    if (got < 0)
        pc_send_error(RECORDER_CONTROL, in.header.request, "receive a request", NULL, errno, NULL);
    else if (in.header.op == RECORDER_READ || in.header.op == RECORDER_EXPORT)
        serve_read(&in);
    else if (in.header.op == RECORDER_FORGET)
        serve_forget(&in);
    else if (in.header.op == RECORDER_TAP)
        serve_tap(&in);
    else if (in.header.op == RECORDER_SYNC)
        serve_sync(&in);
    else if (in.header.op == RECORDER_UNTAP)
        serve_untap(&in);
    else
        pc_send_error(RECORDER_CONTROL, in.header.request, "do a request", "the recorder knows no such one", ENOSYS, NULL);
    pc_release(&in);
}

/* pcrecorder BYTES SNAPLEN ALL: the bound of each interface's frames, and that of all together;
   0 BYTES: nothing is recorded, it is for captures alone. */
int main(int argc, char **argv)
{
    enum { CONTROL, RING, TAPS, COUNT = TAPS + TAPS_MAX };
    static struct pollfd polls[COUNT];
    const size_t bytes = argc > 1 ? strtoul(argv[1], NULL, 10) : MIB;
    const uint32_t snaplen = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : SNAPLEN;
    const size_t all = argc > 3 ? strtoul(argv[3], NULL, 10) : (size_t)TOTAL_MIB * MIB;
    struct pc_failure failure = { 0 };
    struct pc_out out;
    if (fcntl(RECORDER_CONTROL, F_SETFD, FD_CLOEXEC) < 0)
        return 64;
    signal(SIGCHLD, SIG_IGN); /* see tap_end */
    track_limit(bytes, all);
    if (bytes > 0 && ring_open(&ring, snaplen, &failure) < 0) {
        pc_send_failure(RECORDER_CONTROL, 0, &failure);
        return 1;
    }
    pc_begin(&out, RECORDER_READY, 0);
    answer(&out, NULL, 0);
    for (;;) {
        polls[CONTROL] = (struct pollfd){ .fd = RECORDER_CONTROL, .events = POLLIN };
        polls[RING] = (struct pollfd){ .fd = ring.fd, .events = POLLIN };
        tap_polls(polls + TAPS);
        if (poll(polls, COUNT, -1) < 0 && errno != EINTR)
            return 1;
        if (polls[RING].revents)
            ring_drain(&ring, keep, NULL);
        tap_serve(polls + TAPS);
        if (polls[CONTROL].revents)
            serve();
    }
}
