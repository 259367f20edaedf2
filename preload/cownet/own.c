#define _GNU_SOURCE
#include "own.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "../common/cow_cookie.h"
#include "serve.h"

long own_begin(struct own *own, struct caller *caller, size_t size)
{
    const uint64_t map[6] = { 0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, (uint64_t)-1, 0 };
    *own = (struct own){ .caller = caller, .size = size };
    if (remote_begin(&own->remote, caller->listener, caller->call) < 0) {
        if (errno == ESRCH)
            return -ESRCH;
        return serve_refuse(caller, NULL, EACCES, "the caller is traced by a debugger already, and ptrace is needed here");
    }
    const long address = remote_call(&own->remote, SYS_mmap, map);
    if (address < 0 && address > -4096)
        return own_end(own, address);
    own->memory = (uint64_t)address;
    return 0;
}

long own_write(struct own *own, size_t offset, const void *data, size_t size)
{
    return caller_write(own->caller, own->memory + offset, data, size);
}

long own_call(struct own *own, long number, uint64_t first, uint64_t second, uint64_t third, uint64_t fourth)
{
    const uint64_t arguments[6] = { first, second, third, fourth, 0, (uint64_t)pccow_cookie(number, (long)first, (long)second) };
    return remote_call(&own->remote, number, arguments);
}

long own_end(struct own *own, long result)
{
    if (own->memory)
        own_call(own, SYS_munmap, own->memory, own->size, 0, 0);
    remote_end(&own->remote, caller_pid(own->caller), result);
    return ANSWERED;
}

/* Has the caller make a call whose argument number 0 or 1 is the real path. */
static long with_path(struct caller *caller, const char *real, long number, int flags)
{
    struct own own;
    const size_t length = strlen(real) + 1;
    long result = own_begin(&own, caller, length);
    if (result < 0)
        return result;
    result = own_write(&own, 0, real, length);
    if (result == 0 && number == SYS_chdir)
        result = own_call(&own, number, own.memory, 0, 0, 0);
    else if (result == 0)
        result = own_call(&own, number, (uint64_t)AT_FDCWD, own.memory, (uint64_t)flags, 0);
    return own_end(&own, result);
}

long own_open_path(struct caller *caller, int dirfd, const char *path, int flags)
{
    char real[PATH_MAX];
    long error = caller_enter(caller, 0);
    if (error == 0)
        error = cow_real_path(&caller->asker, dirfd, path, flags & O_NOFOLLOW ? COW_NOFOLLOW : 0, real);
    return error < 0 ? error : with_path(caller, real, SYS_openat, flags);
}

long serve_chdir(struct caller *caller)
{
    char real[PATH_MAX];
    PATH_ARGUMENT(caller, 0, path);
    long error = caller_enter(caller, 0);
    if (error == 0)
        error = cow_real_path(&caller->asker, AT_FDCWD, path, 0, real);
    return error < 0 ? error : with_path(caller, real, SYS_chdir, 0);
}
