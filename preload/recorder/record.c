#include <arpa/inet.h>
#include <string.h>

#include "recorder.h"

enum { ADDRESSES = 12, TAG = 4 }; /* bytes of an Ethernet header before the tag, and of the tag */

size_t record_write(uint8_t *to, const struct frame *frame)
{
    struct record record = frame->record;
    uint8_t *bytes = to + sizeof record;
    if (frame->tagged && record.captured >= ADDRESSES) {
        const uint16_t tag[2] = { htons(frame->tag_protocol), htons(frame->tag) };
        memcpy(bytes, frame->bytes, ADDRESSES);
        memcpy(bytes + ADDRESSES, tag, TAG);
        memcpy(bytes + ADDRESSES + TAG, frame->bytes + ADDRESSES, record.captured - ADDRESSES);
        record.captured += TAG;
        record.length += TAG;
    } else {
        memcpy(bytes, frame->bytes, record.captured);
    }
    memcpy(to, &record, sizeof record);
    return record_size(record.captured);
}
