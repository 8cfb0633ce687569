/* What:    any bytes as a path and as a query. What can be decoded must survive being encoded again. */
#include "common/uri.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
    if (!holds) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct span raw = span_of((const char *)data, size);
    struct span value;
    char *out = xmalloc(size + 1);
    char *again = xmalloc(3 * size + 1);
    for (int is_query = 0; is_query < 2; is_query++) {
        size_t len = 0;
        if (uri_decode(raw, is_query, out, &len) != OK) {
            continue;
        }
        check(len <= size);
        size_t encoded = uri_encode(span_of(out, len), again);
        check(encoded <= 3 * len);
        size_t back = 0;
        check(uri_decode(span_of(again, encoded), is_query, again, &back) == OK);
        check(span_eq(span_of(out, len), span_of(again, back)));
    }
    if (uri_parameter(raw, "key", &value)) {
        check(value.data >= raw.data && value.data + value.len <= raw.data + raw.len);
    }
    free(out);
    free(again);
    return 0;
}
