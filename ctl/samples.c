#include "ctl/samples.h"

#define BOUNDS_MAX 128

bool samples_next(const char **at, struct sample *out)
{
    while (**at != '\0') {
        const char *line = *at;
        size_t len = strcspn(line, "\n");
        *at = line + len + (line[len] == '\n');
        size_t name_len = strcspn(line, "{ \n");
        if (line[0] == '#' || name_len == 0 || name_len >= len) {
            continue;
        }
        const char *value = line + name_len;
        out->labels = span_of(value, 0);
        if (*value == '{') {
            const char *end = memchr(value, '}', len - name_len); /* no label of ours has a brace in it */
            if (end == NULL) {
                continue;
            }
            out->labels = span_of(value + 1, (size_t)(end - value) - 1);
            value = end + 1;
        }
        out->name = span_of(line, name_len);
        out->value = strtod(value, NULL);
        return true;
    }
    return false;
}

bool samples_label(const struct sample *sample, const char *label, struct span *out)
{
    size_t len = strlen(label);
    const char *p = sample->labels.data;
    const char *end = p + sample->labels.len;
    while (p < end) {
        const char *equals = memchr(p, '=', (size_t)(end - p));
        if (equals == NULL || equals + 1 >= end || equals[1] != '"') {
            return false;
        }
        const char *close = equals + 2;
        while (close < end && *close != '"') {
            close += *close == '\\' && close + 1 < end ? 2 : 1;
        }
        if ((size_t)(equals - p) == len && memcmp(p, label, len) == 0) {
            *out = span_of(equals + 2, (size_t)(close - equals) - 2);
            return true;
        }
        p = close + 1 < end && close[1] == ',' ? close + 2 : end;
    }
    return false;
}

static bool is_wanted(const struct sample *sample, const char *name, const char *label, struct span value)
{
    struct span its;
    return span_eq(sample->name, span_str(name)) && (label == NULL || (samples_label(sample, label, &its) && span_eq(its, value)));
}

double samples_total(const char *text, const char *name, const char *label, struct span value)
{
    struct sample sample;
    double total = 0;
    while (samples_next(&text, &sample)) {
        total += is_wanted(&sample, name, label, value) ? sample.value : 0;
    }
    return total;
}

struct bound {
    double le;
    double count;
};

/* Adds up the buckets of all series, by bound; in ascending order as they stand in the text. */
static uint32_t add_buckets(const char *text, const char *name, const char *label, struct span value, double sign, struct bound *bounds, uint32_t count)
{
    char bucket[128];
    struct sample sample;
    struct span le;
    snprintf(bucket, sizeof bucket, "%s_bucket", name);
    while (samples_next(&text, &sample)) {
        if (!is_wanted(&sample, bucket, label, value) || !samples_label(&sample, "le", &le)) {
            continue;
        }
        double bound = strtod(le.data, NULL); /* "+Inf", too; the quote ends it */
        uint32_t i = 0;
        while (i < count && bounds[i].le < bound) {
            i++;
        }
        if (i == count || bounds[i].le > bound) {
            if (count == BOUNDS_MAX) {
                continue;
            }
            memmove(&bounds[i + 1], &bounds[i], (count - i) * sizeof bounds[0]);
            bounds[i] = (struct bound){bound, 0};
            count++;
        }
        bounds[i].count += sign * sample.value;
    }
    return count;
}

double samples_quantile(const char *before, const char *after, const char *name, const char *label, struct span value, double quantile)
{
    struct bound bounds[BOUNDS_MAX];
    uint32_t count = add_buckets(after, name, label, value, 1, bounds, 0);
    count = add_buckets(before, name, label, value, -1, bounds, count);
    double all = count > 0 ? bounds[count - 1].count : 0;
    for (uint32_t i = 0; i < count && all > 0; i++) {
        if (bounds[i].count >= quantile * all) {
            return bounds[i].le;
        }
    }
    return -1;
}
