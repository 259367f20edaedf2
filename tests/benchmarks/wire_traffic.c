/* What goes over a link while it is measured; each mode prints one line. Waits are bounded.

     wire_traffic sink PORT                      TCP: "ready", then for each connection bytes and seconds
     wire_traffic stream ADDRESS PORT SECONDS    TCP: writes as fast as it can; bytes and seconds
     wire_traffic count PORT                     UDP: "ready"; packets with number i; ends 0.3 s after the last: received, distinct,
                                            out of order, median and 99th percentile of the age in us, by CLOCK_MONOTONIC
     wire_traffic flood ADDRESS PORT COUNT PER_SECOND BYTES   UDP: sends packets in bursts; sent, seconds,
                                            and packets a second in the slowest half second */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CHUNK = 1 << 18, BATCH = 64, MOST = 1 << 22, QUIET_US = 300000, FIRST_US = 5000000 };

static char chunk[CHUNK];
static uint8_t seen[MOST];
static float ages[MOST];

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static struct sockaddr_in address(const char *text, const char *port)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port)) };
    inet_pton(AF_INET, text, &a.sin_addr);
    return a;
}

static int sink(const char *port)
{
    struct sockaddr_in a = address("0.0.0.0", port);
    int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&a, sizeof a) < 0 || listen(listener, 8) < 0)
        return 1;
    puts("ready");
    for (int c; (c = accept(listener, NULL, NULL)) >= 0; close(c)) {
        double start = 0, total = 0;
        for (ssize_t got; (got = read(c, chunk, sizeof chunk)) > 0; total += (double)got)
            if (total == 0)
                start = now();
        printf("%.0f %.6f\n", total, now() - start);
    }
    return 0;
}

static int stream(const char *to, const char *port, double seconds)
{
    struct sockaddr_in a = address(to, port);
    int s = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(s, (struct sockaddr *)&a, sizeof a) < 0)
        return 1;
    double start = now(), total = 0;
    while (now() - start < seconds) {
        ssize_t sent = write(s, chunk, sizeof chunk);
        if (sent < 0)
            return 1;
        total += (double)sent;
    }
    printf("%.0f %.6f\n", total, now() - start);
    return 0;
}

static int compare(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static int count(const char *port)
{
    struct sockaddr_in a = address("0.0.0.0", port);
    int s = socket(AF_INET, SOCK_DGRAM, 0), size = 64 << 20;
    static char buffers[BATCH][2048];
    struct iovec parts[BATCH];
    struct mmsghdr messages[BATCH];
    unsigned received = 0, distinct = 0, disordered = 0;
    uint32_t last = 0;
    setsockopt(s, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    setsockopt(s, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
    if (bind(s, (struct sockaddr *)&a, sizeof a) < 0)
        return 1;
    puts("ready");
    for (;;) {
        struct timeval patience = { .tv_sec = received ? 0 : FIRST_US / 1000000, .tv_usec = received ? QUIET_US : 0 };
        setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        for (int i = 0; i < BATCH; i++) {
            parts[i] = (struct iovec){ buffers[i], sizeof buffers[i] };
            messages[i] = (struct mmsghdr){ .msg_hdr = { .msg_iov = &parts[i], .msg_iovlen = 1 } };
        }
        int got = recvmmsg(s, messages, BATCH, MSG_WAITFORONE, NULL);
        if (got <= 0)
            break;
        const double at = now();
        for (int i = 0; i < got; i++, received++) {
            uint32_t number;
            double sent;
            memcpy(&number, buffers[i], sizeof number);
            memcpy(&sent, buffers[i] + 4, sizeof sent);
            if (number >= MOST || received >= MOST)
                return 1;
            distinct += !seen[number];
            disordered += number < last;
            seen[number] = 1;
            last = number > last ? number : last;
            ages[received] = (float)((at - sent) * 1e6);
        }
    }
    qsort(ages, received, sizeof *ages, compare);
    printf("%u %u %u %.1f %.1f\n", received, distinct, disordered, received ? ages[received / 2] : 0.0, received ? ages[received * 99ULL / 100] : 0.0);
    return 0;
}

static int flood(char **argv)
{
    struct sockaddr_in a = address(argv[0], argv[1]);
    const unsigned total = (unsigned)atoi(argv[2]), bytes = (unsigned)atoi(argv[4]);
    const double rate = atof(argv[3]);
    static char buffers[BATCH][2048];
    int s = socket(AF_INET, SOCK_DGRAM, 0);
    if (connect(s, (struct sockaddr *)&a, sizeof a) < 0 || bytes < 12 || bytes > 2048)
        return 1;
    const double start = now(), window = 0.5;
    double begin = start, slowest = 1e12;
    uint32_t before = 0;
    for (uint32_t sent = 0; sent < total;) {
        const double at = now();
        if (at - begin >= window) {
            const double per_second = (sent - before) / (at - begin);
            slowest = per_second < slowest ? per_second : slowest;
            begin = at;
            before = sent;
        }
        unsigned allowed = (unsigned)((at - start) * rate) + 1;
        unsigned n = allowed > sent ? allowed - sent : 0;
        n = n > BATCH ? BATCH : n;
        n = n > total - sent ? total - sent : n;
        struct iovec parts[BATCH];
        struct mmsghdr messages[BATCH];
        for (unsigned i = 0; i < n; i++) {
            const uint32_t number = sent + i;
            memcpy(buffers[i], &number, sizeof number);
            memcpy(buffers[i] + 4, &at, sizeof at);
            parts[i] = (struct iovec){ buffers[i], bytes };
            messages[i] = (struct mmsghdr){ .msg_hdr = { .msg_iov = &parts[i], .msg_iovlen = 1 } };
        }
        int done = n ? sendmmsg(s, messages, n, 0) : 0;
        if (done < 0 && errno != EINTR)
            return 1;
        sent += done > 0 ? (unsigned)done : 0;
        double due = start + (double)sent / rate;
        double wait = due - now();
        if (wait > 0)
            nanosleep(&(struct timespec){ .tv_nsec = (long)(wait * 1e9) }, NULL);
    }
    const double took = now() - start;
    if (took < window)
        slowest = total / took;
    printf("%u %.6f %.1f\n", total, took, slowest);
    return 0;
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc == 3 && strcmp(argv[1], "sink") == 0)
        return sink(argv[2]);
    if (argc == 5 && strcmp(argv[1], "stream") == 0)
        return stream(argv[2], argv[3], atof(argv[4]));
    if (argc == 3 && strcmp(argv[1], "count") == 0)
        return count(argv[2]);
    if (argc == 7 && strcmp(argv[1], "flood") == 0)
        return flood(argv + 2);
    return 2;
}
