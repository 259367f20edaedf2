/* Compiled into a libpccow.so of a test's: does what AddressSanitizer and UndefinedBehaviorSanitizer have to see. */
#include <stdlib.h>
#include <string.h>

static volatile char global[8];
static volatile int past = 8;

static void shift(void)
{
    past <<= 4 * past;
}

/* For AddressSanitizer alone, since the other one would be first. */
static void __attribute__((constructor, no_sanitize("undefined"))) overflow(void)
{
    const char *where = getenv("OVERFLOW");
    volatile char stack[8] = "";
    volatile char *heap = malloc(8);
    if (where && strcmp(where, "stack") == 0)
        stack[past] = 1;
    if (where && strcmp(where, "global") == 0)
        global[past] = 1;
    if (where && strcmp(where, "heap") == 0)
        heap[past] = 1;
    if (where && strcmp(where, "shift") == 0)
        shift();
    past = 8 + stack[0];
    free((void *)heap);
}
