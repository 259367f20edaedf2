/* A stream or a flood, and who receives it: `flood tcp|udp send|receive ADDRESS PORT SECONDS`.
 *
 * The sender prints a line of what it has sent in a second (bytes of TCP, datagrams of UDP), the
 * receiver one when it can be sent to, and one of what has arrived in all. A datagram has the 18
 * bytes that make the smallest Ethernet frame.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { BUFFER = 1 << 17, DATAGRAM = 18, BETWEEN_LOOKS = 64 };

static char buffer[BUFFER];

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void send_for(int fd, int tcp, double seconds)
{
    const double begin = now(), end = begin + seconds;
    double at, sent = 0;
    do {
        for (int i = 0; i < BETWEEN_LOOKS; i++) {
            const ssize_t done = send(fd, buffer, tcp ? BUFFER : DATAGRAM, 0);
            if (done > 0)
                sent += tcp ? (double)done : 1;
        }
        at = now();
    } while (at < end);
    printf("%.0f\n", sent / (at - begin));
}

static void receive(int fd, int tcp, const struct sockaddr_in *address)
{
    const struct timeval patience = { .tv_usec = 200000 };
    const int one = 1;
    double got = 0;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (const struct sockaddr *)address, sizeof *address) < 0 || (tcp && listen(fd, 1) < 0))
        exit(1);
    puts("ready");
    fflush(stdout);
    if (tcp)
        fd = accept(fd, NULL, NULL);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    for (ssize_t done; (done = recv(fd, buffer, sizeof buffer, 0)) > 0;)
        got += tcp ? (double)done : 1;
    printf("%.0f\n", got);
}

int main(int argc, char **argv)
{
    struct sockaddr_in address = { .sin_family = AF_INET };
    if (argc != 6 || inet_pton(AF_INET, argv[3], &address.sin_addr) != 1)
        return 64;
    address.sin_port = htons((uint16_t)atoi(argv[4]));
    const int tcp = strcmp(argv[1], "tcp") == 0;
    const int fd = socket(AF_INET, tcp ? SOCK_STREAM : SOCK_DGRAM, 0);
    if (strcmp(argv[2], "receive") == 0)
        receive(fd, tcp, &address);
    else if (connect(fd, (const struct sockaddr *)&address, sizeof address) == 0)
        send_for(fd, tcp, atof(argv[5]));
    else
        return 1;
    return 0;
}
