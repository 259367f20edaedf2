#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../common/failure.h"
#include "wire.h"

static int is_address(const struct pc_cursor *cursor)
{
    return cursor->field.length == 4 || cursor->field.length == 16;
}

/* An address of IP or Ethernet, or one of IP with the length of its prefix behind it: a subnet's. Returns
   -1 when there is no more room, 1 when it is none of these. */
static int know(struct hosts *hosts, const uint8_t *value, unsigned length, uint64_t number)
{
    const unsigned size = length - 1, prefix = value[length - 1];
    if (length == 4 || length == 6 || length == 16)
        return hosts_know(hosts, value, length, number);
    if ((size == 4 || size == 16) && prefix <= size * 8)
        return hosts_know_subnet(hosts, value, size, prefix, number);
    return 1;
}

/* VALUE (a number of 8 bytes), then the ADDRESSes that are that host's or subnet's. */
static int know_hosts(struct wire *wire, struct pc_in *in, struct pc_failure *failure)
{
    struct pc_cursor cursor;
    uint64_t number = 0;
    pc_fields(&cursor, in);
    for (char *value; (value = pc_next(&cursor));) {
        const uint32_t type = cursor.field.type, length = cursor.field.length;
        int wrong = 0;
        if (type == PC_F_VALUE && length == sizeof number)
            memcpy(&number, value, sizeof number);
        else
            wrong = type == PC_F_ADDRESS && length > 0 ? know(wire->hosts, (const uint8_t *)value, length, number) : 1;
        if (wrong > 0)
            return pc_fail_as(failure, "understand", "the hosts of a wire", EPROTO, NULL);
        if (wrong < 0)
            return pc_fail_as(failure, "remember", "the hosts of a wire", ENOSPC, "there are too many");
    }
    return 0;
}

/* Whether there is room for all the rules of a request: those in force are dropped for nothing else. */
static int have_room(struct wire *wire, struct pc_in *in, struct pc_failure *failure)
{
    struct pc_cursor cursor;
    struct faults faults;
    unsigned rules[ENDS] = { 0 };
    pc_fields(&cursor, in);
    for (char *value; (value = pc_peek(&cursor));) {
        if (cursor.field.type != PC_F_VALUE || cursor.field.length != sizeof faults)
            continue;
        memcpy(&faults, value, sizeof faults);
        if (faults.towards < ENDS)
            rules[faults.towards]++;
    }
    for (int i = 0; i < ENDS; i++) {
        if (rules[i] > RULES_MAX)
            return pc_fail_as(failure, "put in force", "the faults of a wire", ENOSPC, "a cable has room for 32 impairments each way");
        if (lane_reserve(&wire->lane[i], rules[i]) < 0)
            return pc_fail(failure, "put in force", "the faults of a wire");
    }
    return 0;
}

/* VALUE (struct faults), the SOURCE and TARGET addresses that it is for, and the next one; before
   them ENDS, to which nothing passes at all, and FLAGS 1, to forget conversations. */
static int set_rules(struct wire *wire, struct pc_in *in, struct pc_failure *failure)
{
    struct pc_cursor cursor;
    struct channel *channel = NULL;
    struct faults faults;
    uint32_t cut = 0;
    if (have_room(wire, in, failure) < 0)
        return -1;
    for (int i = 0; i < ENDS; i++)
        lane_drop_rules(&wire->lane[i]);
    pc_fields(&cursor, in);
    for (char *value; (value = pc_next(&cursor));) {
        const uint32_t type = cursor.field.type, length = cursor.field.length;
        int failed = 0;
        if (type == PC_F_ENDS) {
            cut = pc_u32(&cursor, value);
        } else if (type == PC_F_FLAGS) {
            if (pc_u32(&cursor, value) & 1)
                flows_forget(wire->flows);
        } else if (type == PC_F_VALUE && length == sizeof faults) {
            memcpy(&faults, value, sizeof faults);
            channel = faults.towards < ENDS ? lane_add_rule(&wire->lane[faults.towards], &faults) : NULL;
            failed = !channel;
        } else if (channel && (type == PC_F_SOURCE || type == PC_F_TARGET) && is_address(&cursor)) {
            failed = addresses_add(type == PC_F_SOURCE ? &channel->senders : &channel->receivers, (const uint8_t *)value, length) < 0;
        } else {
            return pc_fail_as(failure, "understand", "the faults of a wire", EPROTO, NULL);
        }
        if (failed)
            return pc_fail(failure, "put in force", "the faults of a wire");
    }
    for (int i = 0; i < ENDS; i++)
        lane_cut(&wire->lane[i], cut >> i & 1);
    return 0;
}

static void put_counts(struct wire *wire, struct pc_out *out)
{
    for (int i = 0; i < ENDS; i++) {
        struct counts counts;
        lane_read_counts(&wire->lane[i], &counts);
        pc_put(out, PC_F_VALUE, &counts, sizeof counts);
    }
}

static void *close_both(void *argument)
{
    const int *sockets = argument;
    for (int i = 0; i < ENDS; i++)
        close(sockets[i]);
    free(argument);
    return NULL;
}

/* The last to close a packet socket waits for a grace period of RCU, some 10 ms, in which no
   frame would pass. But kept they would keep the hosts' networks, and the plugs with them. */
static void close_aside(struct pc_in *in)
{
    int *sockets = malloc(ENDS * sizeof *sockets);
    pthread_t thread;
    if (!sockets)
        return; /* then they are closed with the message */
    memcpy(sockets, in->fds, ENDS * sizeof *sockets);
    if (pthread_create(&thread, NULL, close_both, sockets) != 0) {
        free(sockets);
        return;
    }
    pthread_detach(thread);
    in->fd_count = 0;
}

static int prove(struct wire *wire, struct pc_in *in, struct pc_failure *failure)
{
    if (in->fd_count != ENDS)
        return pc_fail_as(failure, "prove", "the wire", EPROTO, "expected a socket of each host");
    const int failed = canary_fly(wire, in->fds, failure);
    close_aside(in);
    return failed;
}

int control_serve(struct wire *wire, struct pc_in *in)
{
    struct pc_failure failure = { 0 };
    struct pc_out out;
    const int op = in->header.op;
    const uint32_t request = in->header.request;
    int failed = 0;
    pc_begin(&out, PC_OK, request);
    if (op == PC_WIRE_HOSTS)
        failed = know_hosts(wire, in, &failure) < 0;
    else if (op == PC_WIRE_START)
        failed = wire_start(wire, &failure) < 0;
    else if (op == PC_WIRE_SET)
        failed = set_rules(wire, in, &failure) < 0;
    else if (op == PC_WIRE_PROVE)
        failed = prove(wire, in, &failure) < 0;
    else if (op == PC_WIRE_END)
        wire_drain(wire);
    else if (op != PC_WIRE_COUNT)
        failed = pc_fail_as(&failure, "do a request", "a wire knows no such one", ENOSYS, NULL) < 0;
    if (op == PC_WIRE_COUNT || op == PC_WIRE_END)
        put_counts(wire, &out);
    if (failed)
        pc_send_failure(wire->control, request, &failure);
    else
        pc_send(wire->control, &out, NULL, 0, 0);
    return op != PC_WIRE_END;
}
