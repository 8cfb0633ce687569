/* What:    any bytes as an HTTP response, whole and cut off: the answer may only get more certain the more has come. */
#include "ctl/response.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
    if (!holds) {
        abort();
    }
}

static bool is_within(struct span part, struct span all)
{
    return part.len == 0 || (part.data >= all.data && part.data + part.len <= all.data + all.len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct span all = span_of((const char *)data, size);
    struct response whole;
    struct response part;
    struct span value;
    enum response_state state = response_parse(all, true, &whole);
    check(state != RESPONSE_MORE);
    if (state == RESPONSE_WHOLE) {
        check(is_within(whole.headers, all) && is_within(whole.body, all) && whole.status >= 100 && whole.status <= 999);
        check(!response_header(&whole, "Content-Type", &value) || is_within(value, all));
    }
    size_t half = size / 2;
    enum response_state early = response_parse(span_of(all.data, half), false, &part);
    if (early == RESPONSE_WHOLE) {
        check(state == RESPONSE_WHOLE && part.status == whole.status && span_eq(part.body, whole.body));
    } else if (early == RESPONSE_BAD) {
        check(state == RESPONSE_BAD);
    }
    return 0;
}
