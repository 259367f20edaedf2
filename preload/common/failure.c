#include "failure.h"

#include <errno.h>
#include <stddef.h>

#include "message.h"

int pc_fail_as(struct pc_failure *failure, const char *step, const char *object, int error, const char *remedy)
{
    size_t i = 0;
    failure->step = step;
    failure->remedy = remedy;
    failure->error = error;
    for (; object && object[i] && i < sizeof failure->object - 1; i++)
        failure->object[i] = object[i];
    failure->object[i] = 0;
    return -1;
}

int pc_fail(struct pc_failure *failure, const char *step, const char *object)
{
    return pc_fail_as(failure, step, object, errno, NULL);
}

int pc_send_failure(int fd, uint32_t request, const struct pc_failure *failure)
{
    return pc_send_error(fd, request, failure->step, failure->object, failure->error, failure->remedy);
}
