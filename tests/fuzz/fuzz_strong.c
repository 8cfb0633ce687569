/* What:    any bytes as a message between controllers, and as a region's record. What is accepted must keep to its limits and be written the same again. */
#include "proxy/strong/message.h"
#include "proxy/strong/record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
    if (!holds) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct span bytes = span_of((const char *)data, size);
    struct message message;
    if (message_read(bytes, &message) == OK) {
        char again[MESSAGE_MAX];
        check(message.kind > 0 && message.kind < MESSAGE_KINDS && message.status < MESSAGE_STATUSES);
        check(message.inbox.len < MESSAGE_INBOX_MAX && message.body.len <= MESSAGE_BODY_MAX);
        check(span_eq(span_of(again, message_write(&message, again)), bytes));
    }
    struct lease_record record;
    if (record_read(bytes, &record) == OK) {
        char again[RECORD_MAX];
        check(record.number <= RECORD_NUMBER_MAX);
        check(span_eq(span_of(again, record_write(&record, again)), bytes));
    }
    return 0;
}
