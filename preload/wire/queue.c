#define _GNU_SOURCE
#include "queue.h"

#include <string.h>
#include <sys/mman.h>

enum { ALIGNMENT = 16, KEPT = 4 << 20 };

struct entry {
    uint32_t size; /* of all of it; 0: go on at the buffer's beginning */
    uint32_t headers_length, rest_length;
    uint16_t tag_protocol, tag;
    int64_t due;
    unsigned packets;
};

int queue_open(struct queue *queue, size_t size)
{
    *queue = (struct queue){ .size = size };
    void *bytes = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    queue->bytes = bytes == MAP_FAILED ? NULL : bytes;
    return queue->bytes ? 0 : -1;
}

static struct entry *at(const struct queue *queue, size_t place)
{
    return (struct entry *)(void *)(queue->bytes + place);
}

/* A place for so many bytes, or NULL. Room for one entry's head is left free behind the newest,
   so that kept == tail means that nothing is in use. */
static struct entry *reserve(struct queue *queue, size_t size)
{
    if (queue->tail >= queue->kept) {
        if (queue->size - queue->tail >= size + sizeof(struct entry))
            return at(queue, queue->tail);
        if (queue->kept <= size + sizeof(struct entry))
            return NULL;
        at(queue, queue->tail)->size = 0;
        if (queue->count == 0)
            queue->head = 0;
        queue->tail = 0;
        return at(queue, 0);
    }
    return queue->kept - queue->tail > size + sizeof(struct entry) ? at(queue, queue->tail) : NULL;
}

int queue_put(struct queue *queue, const struct parcel *parcel, int64_t due)
{
    size_t size = sizeof(struct entry) + sizeof parcel->vnet + parcel->headers_length + parcel->rest_length;
    size = (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    struct entry *entry = reserve(queue, size);
    if (!entry)
        return -1;
    if (queue->count > 0 && due < queue->newest)
        due = queue->newest;
    *entry = (struct entry){ (uint32_t)size, parcel->headers_length, parcel->rest_length, parcel->tag_protocol, parcel->tag, due, parcel->packets };
    uint8_t *bytes = (uint8_t *)(entry + 1);
    memcpy(bytes, &parcel->vnet, sizeof parcel->vnet); /* in front, for who sends it in one piece */
    bytes += sizeof parcel->vnet;
    memcpy(bytes, parcel->headers, parcel->headers_length);
    if (parcel->rest_length)
        memcpy(bytes + parcel->headers_length, parcel->rest, parcel->rest_length);
    queue->newest = due;
    queue->tail += size;
    queue->count++;
    return 0;
}

int64_t queue_due(const struct queue *queue)
{
    return queue->count ? at(queue, queue->head)->due : INT64_MAX;
}

void queue_take(struct queue *queue, struct parcel *parcel)
{
    const struct entry *entry = at(queue, queue->head);
    const uint8_t *bytes = (const uint8_t *)(entry + 1) + sizeof parcel->vnet;
    *parcel = (struct parcel){ { 0 }, entry->tag_protocol, entry->tag, bytes, entry->headers_length,
                               bytes + entry->headers_length, entry->rest_length, entry->packets, 1 };
    memcpy(&parcel->vnet, entry + 1, sizeof parcel->vnet);
    queue->head += entry->size;
    queue->count--;
    if (queue->count && at(queue, queue->head)->size == 0)
        queue->head = 0;
}

void queue_settle(struct queue *queue)
{
    queue->kept = queue->head;
    if (queue->count)
        return;
    /* The pages of a burst are not kept for ever. */
    if (queue->tail > KEPT)
        madvise(queue->bytes + KEPT, queue->size - KEPT, MADV_DONTNEED);
    queue->kept = queue->head = queue->tail = 0;
}

void queue_clear(struct queue *queue)
{
    queue->count = 0;
    queue->head = queue->tail;
    queue_settle(queue);
}
