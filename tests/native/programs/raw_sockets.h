/* Sockets in the file system; a part of raw.c. */
#ifndef RAW_SOCKETS_H
#define RAW_SOCKETS_H

#include <stddef.h>
#include <sys/un.h>

static void op_socket(void)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = "d/socket" };
    const long server = RAW(SYS_socket, AF_UNIX, SOCK_STREAM, 0), client = RAW(SYS_socket, AF_UNIX, SOCK_STREAM, 0);
    const socklen_t length = offsetof(struct sockaddr_un, sun_path) + sizeof "d/socket";
    say("bind", RAW(SYS_bind, server, &address, length));
    say("listen", RAW(SYS_listen, server, 1));
    say("connect", RAW(SYS_connect, client, &address, length));
    say("bind", RAW(SYS_bind, client, &address, length));
}
static long take(long socket, int along)
{
    char text[16] = "", space[CMSG_SPACE(sizeof(int))] = "";
    struct iovec piece = { text, sizeof text - 1 };
    struct msghdr message = { .msg_iov = &piece, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space };
    say("receive", RAW(SYS_recvmsg, socket, &message, MSG_DONTWAIT));
    printf("%s, %zu along\n", text, message.msg_controllen);
    return along && message.msg_controllen ? *(int *)(void *)CMSG_DATA((struct cmsghdr *)(void *)space) : -1;
}
static void op_datagrams(void)
{
    static char large[1 << 20];
    struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = "d/datagrams" }, none = { AF_UNIX, "d/none" }, file = { AF_UNIX, "a.txt" };
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } along = { .header = { CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS } };
    struct iovec pieces[2] = { { "two", 3 }, { " pieces", 7 } }, all = { large, sizeof large };
    struct msghdr message = { &address, sizeof address, pieces, 2, along.space, sizeof along, 0 };
    struct mmsghdr two[2] = { { { &address, sizeof address, pieces, 1, NULL, 0, 0 }, 0 }, { { &address, sizeof address, pieces, 2, NULL, 0, 0 }, 0 } };
    const long server = RAW(SYS_socket, AF_UNIX, SOCK_DGRAM, 0), client = RAW(SYS_socket, AF_UNIX, SOCK_DGRAM, 0);
    say("bind", RAW(SYS_bind, server, &address, sizeof address));
    say("sendto", RAW(SYS_sendto, client, "one", 3, 0, &address, sizeof address));
    take(server, 0);
    *(int *)(void *)CMSG_DATA(&along.header) = (int)RAW(SYS_open, "d/b.txt", O_RDONLY, 0);
    printf("%ld bytes\n", RAW(SYS_sendmsg, client, &message, 0));
    const long given = take(server, 1);
    say("read", RAW(SYS_read, given, large, 7));
    printf("%.7s\n", large);
    for (long sent = 0, now; sent < 2 && (now = RAW(SYS_sendmmsg, client, two + sent, 2 - sent, 0)) > 0;)
        sent += now;
    printf("%u %u bytes\n", two[0].msg_len, two[1].msg_len);
    take(server, 0);
    take(server, 0);
    say("sendto missing", RAW(SYS_sendto, client, "one", 3, 0, &none, sizeof none));
    say("sendto file", RAW(SYS_sendto, client, "one", 3, 0, &file, sizeof file));
    say("sendto nothing", RAW(SYS_sendto, client, "one", 3, 0, &address, 0));
    say("sendto bad", RAW(SYS_sendto, 999, "one", 3, 0, &address, sizeof address));
    say("sendto no socket", RAW(SYS_sendto, 1, "one", 3, 0, &address, sizeof address));
    message = (struct msghdr){ &address, sizeof address, &all, 1, NULL, 0, 0 };
    say("too much", RAW(SYS_sendmsg, client, &message, MSG_DONTWAIT));
    *(int *)(void *)CMSG_DATA(&along.header) = 999;
    message = (struct msghdr){ &address, sizeof address, pieces, 2, along.space, sizeof along, 0 };
    say("no such descriptor", RAW(SYS_sendmsg, client, &message, 0));
    say("bad header", RAW(SYS_sendmsg, client, (void *)8, 0));
    say("connect", RAW(SYS_connect, client, &address, sizeof address));
    say("send", RAW(SYS_sendto, client, "last", 4, 0, NULL, 0));
    take(server, 0);
    say("receive", RAW(SYS_recvfrom, server, large, 1, MSG_DONTWAIT, NULL, NULL));
}

#endif
