#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "wire.h"

/* A frame through the wire takes some 50 us. */
#define PATIENCE_NS 2000000000LL
#define REMEDY "the wire is there, but frames do not come through it: is a host's interface down?"

static int let_fly(int socket, uint8_t mark)
{
    uint8_t frame[CANARY_SIZE] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 0, CANARY_TYPE >> 8, CANARY_TYPE & 255 };
    memcpy(frame + 14, CANARY_WORDS, 8);
    frame[CANARY_MARK + 1] = mark;
    return send(socket, frame, sizeof frame, 0) == sizeof frame ? 0 : -1;
}

/* Reads what has come; returns 1 when our canary is there. */
static int look(int socket, uint8_t mark, int *around)
{
    uint8_t frame[CANARY_SIZE];
    int found = 0;
    ssize_t length;
    while ((length = recv(socket, frame, sizeof frame, MSG_DONTWAIT)) >= 0 || errno == EINTR || errno == ENETDOWN) {
        if (length < CANARY_MARK + 2 || memcmp(frame + 14, CANARY_WORDS, 8) != 0 || frame[CANARY_MARK + 1] != mark)
            continue;
        if (frame[CANARY_MARK])
            found = 1;
        else
            *around = 1;
    }
    return found;
}

int canary_fly(struct wire *wire, const int sockets[ENDS], struct pc_failure *failure)
{
    static uint8_t mark;
    const int64_t until = clock_ns() + PATIENCE_NS;
    mark++;
    for (int from = 0; from < ENDS; from++) {
        int arrived = 0, around = 0;
        if (let_fly(sockets[from], mark) < 0)
            return pc_fail(failure, "send a canary from", from ? "the second host" : "the first host");
        while (!arrived && clock_ns() < until) {
            if (wire_run(wire, sockets[!from], until) & 4)
                break;
            arrived = look(sockets[!from], mark, &around);
        }
        if (around)
            return pc_fail_as(failure, "prove", "the wire", EEXIST, "a canary came around it: the link passes frames by itself as well");
        if (!arrived)
            return pc_fail_as(failure, "prove", "the wire", ETIMEDOUT, REMEDY);
    }
    return 0;
}
