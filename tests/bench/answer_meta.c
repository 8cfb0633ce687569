/* What: the scripted node's meta commands: mg ms md ma mn, each with the return flags that were asked for, in that order. Flags that
 *       steer a store (leases, versions, modes, expiry) are read and ignored: every key is there, and every change succeeds. */
#include "tests/bench/answer.h"

static char *put(char *p, const char *data, size_t len)
{
    memcpy(p, data, len);
    return p + len;
}

static char *put_decimal(char *p, uint64_t number)
{
    char digits[20];
    size_t n = 0;
    do {
        digits[n++] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    while (n > 0)
        *p++ = digits[--n];
    return p;
}

static char *put_number(char *p, char flag, uint64_t number)
{
    *p++ = ' ';
    *p++ = flag;
    return put_decimal(p, number);
}

/* What a command's flags say about its answer as a whole. */
struct manner {
    bool wants_value;     /* v */
    bool is_quiet;        /* q */
    bool is_base64;       /* b: told behind the key */
    uint64_t new_version; /* E: what a change sets the CAS to; 0: not given */
};

static struct manner read_manner(struct span flags)
{
    struct manner m = {0};
    for (struct span flag = answer_word(&flags); flag.len > 0; flag = answer_word(&flags)) {
        if (flag.data[0] == 'v')
            m.wants_value = true;
        else if (flag.data[0] == 'q')
            m.is_quiet = true;
        else if (flag.data[0] == 'b')
            m.is_base64 = true;
        else if (flag.data[0] == 'E')
            m.new_version = answer_number(span_of(flag.data + 1, flag.len - 1));
    }
    return m;
}

struct item {
    struct span key;
    bool is_base64;
    uint64_t cas;
    size_t size;
};

/* p has room for answer_room(). */
static char *put_flags(char *p, const struct item *item, struct span flags)
{
    for (struct span flag = answer_word(&flags); flag.len > 0; flag = answer_word(&flags)) {
        switch (flag.data[0]) {
        case 'f': p = put_number(p, 'f', 0); break;
        case 'c': p = put_number(p, 'c', item->cas); break;
        case 's': p = put_number(p, 's', item->size); break;
        case 'h': p = put_number(p, 'h', 1); break;
        case 'l': p = put_number(p, 'l', 0); break;
        case 't': p = put(p, " t-1", 4); break;
        case 'k':
            p = put(put(p, " k", 2), item->key.data, item->key.len);
            p = item->is_base64 ? put(p, " b", 2) : p;
            break;
        case 'O': p = put(put(p, " ", 1), flag.data, flag.len); break;
        default: break;
        }
    }
    return p;
}

static size_t answer_room(const struct item *item, struct span flags)
{
    return 64 + flags.len + (flags.len / 2 + 1) * (item->key.len + 24); /* a flag takes two bytes of its line or more */
}

static void answer_mg(const struct answer_value *value, struct span key, struct span flags, struct bytes *out)
{
    struct manner manner = read_manner(flags);
    bool wants_value = manner.wants_value;
    const struct item item = {key, manner.is_base64, value->cas, value->size};
    bytes_reserve(out, out->len + answer_room(&item, flags) + value->block_len);
    char *start = out->data + out->len;
    char *p = wants_value ? put_decimal(put(start, "VA ", 3), value->size) : put(start, "HD", 2);
    p = put(put_flags(p, &item, flags), "\r\n", 2);
    if (wants_value)
        p = put(p, value->block, value->block_len);
    out->len += (size_t)(p - start);
}

/* ms KEY LENGTH flags…; the answer waits for the data. */
static void answer_ms(const struct answer_value *value, struct answer_state *state, struct span key, struct span flags)
{
    state->discard = answer_number(answer_word(&flags)) + 2;
    state->held_len = 0;
    struct manner manner = read_manner(flags);
    struct item item = {key, manner.is_base64, manner.new_version != 0 ? manner.new_version : value->cas, state->discard - 2};
    if (manner.is_quiet || answer_room(&item, flags) > sizeof(state->held))
        return;
    char *p = put(put_flags(put(state->held, "HD", 2), &item, flags), "\r\n", 2);
    state->held_len = (size_t)(p - state->held);
}

/* md and ma; the latter answers the number 1 when asked for a value. */
static void answer_change(const struct answer_value *value, struct span key, struct span flags, bool has_number, struct bytes *out)
{
    struct manner manner = read_manner(flags);
    struct item item = {key, manner.is_base64, manner.new_version != 0 ? manner.new_version : value->cas, 1};
    if (manner.is_quiet)
        return;
    bytes_reserve(out, out->len + answer_room(&item, flags));
    char *start = out->data + out->len;
    bool wants_value = has_number && manner.wants_value;
    char *p = put(put_flags(wants_value ? put(start, "VA 1", 4) : put(start, "HD", 2), &item, flags), "\r\n", 2);
    if (wants_value)
        p = put(p, "1\r\n", 3);
    out->len += (size_t)(p - start);
}

bool answer_meta(const struct answer_value *value, struct answer_state *state, struct span line, struct bytes *out)
{
    char command = answer_word(&line).data[1];
    struct span key = answer_word(&line);
    switch (command) {
    case 'g': answer_mg(value, key, line, out); return true;
    case 's': answer_ms(value, state, key, line); return true;
    case 'd': answer_change(value, key, line, false, out); return true;
    case 'a': answer_change(value, key, line, true, out); return true;
    case 'n': APPEND_LITERAL(out, "MN\r\n"); return true;
    default: return false;
    }
}
