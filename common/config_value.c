#include "common/config_value.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/key_template.h"

static enum err fail_value(struct reason *why, const char *value, const char *rest)
{
    char quoted[CONFIG_QUOTED_SIZE];
    return config_problems_reason(why, "%s %s", config_problems_quote(span_str(value), quoted), rest);
}

/* ---- environment ---- */

static bool is_name_char(char c, bool first)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_' || (!first && c >= '0' && c <= '9');
}

struct text_out {
    char *data;
    size_t len;
    size_t cap;
};

static enum err put(struct text_out *out, const char *data, size_t len, struct reason *why)
{
    if (len > CONFIG_EXPANDED_MAX - out->len) {
        return config_problems_reason(why, "is longer than %d bytes with the environment in it", CONFIG_EXPANDED_MAX);
    }
    if (out->len + len > out->cap) {
        size_t cap = MIN((size_t)CONFIG_EXPANDED_MAX, MAX(out->cap * 2, out->len + len));
        char *grown = realloc(out->data, cap + 1);
        if (grown == NULL) {
            return config_problems_reason(why, "%s", err_text(ERR_NOMEM));
        }
        out->data = grown;
        out->cap = cap;
    }
    memcpy(out->data + out->len, data, len);
    out->len += len;
    return OK;
}

/* The variable whose "${" stands before `at`; returns how many bytes of `raw` were used, or 0 after a failure. */
static size_t put_variable(struct text_out *out, struct span raw, size_t at, struct reason *why)
{
    const char *name = raw.data + at;
    size_t rest = raw.len - at;
    size_t len = 0;
    while (len < rest && is_name_char(name[len], len == 0)) {
        len++;
    }
    const char *end = memchr(name, '}', rest);
    bool has_default = len + 1 < rest && name[len] == ':' && name[len + 1] == '-';
    if (len == 0 || len > 255 || end == NULL || (!has_default && name[len] != '}')) {
        config_problems_reason(why, "\"${\" must go on with NAME} or NAME:-text} (write \"$$\" for a dollar sign)");
        return 0;
    }
    char variable[256];
    memcpy(variable, name, len);
    variable[len] = '\0';
    struct span value;
    const char *set = getenv(variable);
    if (set != NULL) {
        value = span_str(set);
    } else if (has_default) {
        value = span_of(name + len + 2, (size_t)(end - name) - len - 2);
    } else {
        config_problems_reason(why, "the environment variable %s is not set (${%s:-text} would give it a default)", variable, variable);
        return 0;
    }
    return put(out, value.data, value.len, why) == OK ? (size_t)(end - name) + 1 : 0;
}

enum err config_value_expand(struct span raw, char **out, struct reason *why)
{
    struct text_out text = {.data = xmalloc(raw.len + 1), .cap = raw.len};
    enum err err = OK;
    *out = NULL;
    if (raw.len > CONFIG_EXPANDED_MAX || memchr(raw.data, '\0', raw.len) != NULL) {
        err = config_problems_reason(why, raw.len > CONFIG_EXPANDED_MAX ? "is longer than 64 KiB" : "has a zero byte in it");
        goto out;
    }
    for (size_t i = 0; i < raw.len && err == OK;) {
        const char *dollar = memchr(raw.data + i, '$', raw.len - i);
        size_t plain = dollar == NULL ? raw.len - i : (size_t)(dollar - raw.data) - i;
        err = put(&text, raw.data + i, plain, why);
        i += plain;
        if (err != OK || dollar == NULL) {
            break;
        }
        char next = i + 1 < raw.len ? raw.data[i + 1] : '\0';
        if (next == '$') {
            err = put(&text, "$", 1, why);
            i += 2;
        } else if (next == '{') {
            size_t used = put_variable(&text, raw, i + 2, why);
            err = used > 0 ? OK : ERR_INVALID;
            i += 2 + used;
        } else {
            err = config_problems_reason(why, "\"$\" must be followed by \"{\" or \"$\" (write \"$$\" for a dollar sign)");
        }
    }
out:
    if (err != OK) {
        free(text.data);
        return err;
    }
    text.data[text.len] = '\0';
    *out = text.data;
    return OK;
}

/* ---- numbers and quantities ---- */

struct unit {
    const char *name;
    uint64_t factor;
};

static const struct unit time_units[] = {
    {"us", 1}, {"ms", 1000}, {"s", 1000000}, {"m", 60000000}, {"h", 3600000000}, {"d", 86400000000},
};
static const struct unit size_units[] = {{"B", 1}, {"KiB", 1024}, {"MiB", 1048576}, {"GiB", 1073741824}};

/* The digits at the front of `text`; *rest is what follows. False without digits, with a needless zero in front, or on overflow. */
static bool parse_digits(const char *text, unsigned base, uint64_t *out, const char **rest)
{
    const char *p = text;
    uint64_t value = 0;
    for (; *p >= '0' && *p < (char)('0' + base); p++) {
        if (__builtin_mul_overflow(value, base, &value) || __builtin_add_overflow(value, (uint64_t)(*p - '0'), &value)) {
            return false;
        }
    }
    *out = value;
    *rest = p;
    return p > text && (base == 8 || p == text + 1 || *text != '0');
}

static bool parse_quantity(const char *text, const struct unit *units, size_t count, uint64_t *out)
{
    const char *rest;
    if (!parse_digits(text, 10, out, &rest)) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        if (strcmp(rest, units[i].name) == 0) {
            return !__builtin_mul_overflow(*out, units[i].factor, out);
        }
    }
    return false;
}

static const char *quantity_text(uint64_t value, const struct unit *units, size_t count, size_t zero, char out[CONFIG_QUANTITY_SIZE])
{
    size_t i = zero;
    if (value != 0) {
        for (i = count - 1; value % units[i].factor != 0; i--) {
        }
    }
    snprintf(out, CONFIG_QUANTITY_SIZE, "%llu%s", (unsigned long long)(value / units[i].factor), units[i].name);
    return out;
}

const char *config_value_size_text(uint64_t bytes, char out[CONFIG_QUANTITY_SIZE])
{
    return quantity_text(bytes, size_units, ARRAY_LEN(size_units), 0, out);
}

const char *config_value_duration_text(uint64_t us, char out[CONFIG_QUANTITY_SIZE])
{
    return quantity_text(us, time_units, ARRAY_LEN(time_units), 2, out);
}

static enum err fail_range(struct reason *why, const char *value, const char *min, const char *max)
{
    char quoted[CONFIG_QUOTED_SIZE];
    return config_problems_reason(why, "%s is out of range: %s to %s", config_problems_quote(span_str(value), quoted), min, max);
}

enum err config_value_number(const char *text, uint64_t min, uint64_t max, uint64_t *out, struct reason *why)
{
    const char *rest;
    bool is_digits = text[0] != '\0' && text[strspn(text, "0123456789")] == '\0';
    if (!is_digits || (text[0] == '0' && text[1] != '\0')) {
        return fail_value(why, text, "is not a whole number");
    }
    if (!parse_digits(text, 10, out, &rest) || *out < min || *out > max) {
        char low[CONFIG_QUANTITY_SIZE];
        char high[CONFIG_QUANTITY_SIZE];
        snprintf(low, sizeof low, "%llu", (unsigned long long)min);
        snprintf(high, sizeof high, "%llu", (unsigned long long)max);
        return fail_range(why, text, low, high);
    }
    return OK;
}

enum err config_value_octal(const char *text, uint64_t min, uint64_t max, uint64_t *out, struct reason *why)
{
    const char *digits = text[0] == '0' && text[1] == 'o' ? text + 2 : text;
    const char *rest;
    if (!parse_digits(digits, 8, out, &rest) || *rest != '\0') {
        return fail_value(why, text, "is not an octal number like 0660");
    }
    if (*out < min || *out > max) {
        char low[CONFIG_QUANTITY_SIZE];
        char high[CONFIG_QUANTITY_SIZE];
        snprintf(low, sizeof low, "%04llo", (unsigned long long)min);
        snprintf(high, sizeof high, "%04llo", (unsigned long long)max);
        return fail_range(why, text, low, high);
    }
    return OK;
}

enum err config_value_size(const char *text, uint64_t min, uint64_t max, uint64_t *out, struct reason *why)
{
    if (!parse_quantity(text, size_units, ARRAY_LEN(size_units), out)) {
        return fail_value(why, text, "is not a size: a whole number and a unit (B, KiB, MiB, GiB)");
    }
    if (*out < min || *out > max) {
        char low[CONFIG_QUANTITY_SIZE];
        char high[CONFIG_QUANTITY_SIZE];
        return fail_range(why, text, config_value_size_text(min, low), config_value_size_text(max, high));
    }
    return OK;
}

enum err config_value_duration(const char *text, uint64_t unit_us, uint64_t min, uint64_t max, uint64_t *out, struct reason *why)
{
    uint64_t us;
    if (!parse_quantity(text, time_units, ARRAY_LEN(time_units), &us)) {
        return fail_value(why, text, "is not a duration: a whole number and a unit (us, ms, s, m, h, d)");
    }
    if (us % unit_us != 0) {
        return fail_value(why, text, unit_us == 1000 ? "is not in whole milliseconds" : "is not in whole seconds");
    }
    *out = us / unit_us;
    if (*out < min || *out > max) {
        char low[CONFIG_QUANTITY_SIZE];
        char high[CONFIG_QUANTITY_SIZE];
        return fail_range(why, text, config_value_duration_text(min * unit_us, low), config_value_duration_text(max * unit_us, high));
    }
    return OK;
}

/* ---- text ---- */

enum err config_value_check_text(const char *text, struct reason *why)
{
    for (const char *p = text; *p != '\0'; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7f) {
            return fail_value(why, text, "has a control character in it");
        }
    }
    return OK;
}

static bool is_alnum(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

enum err config_value_check_label(const char *text, struct reason *why)
{
    for (const char *p = text; *p != '\0'; p++) {
        if (!is_alnum(*p) && *p != '-' && *p != '_') {
            return fail_value(why, text, "may have only letters, digits, '-' and '_' in it");
        }
    }
    return OK;
}

enum err config_value_check_prefix(const char *text, struct reason *why)
{
    for (const char *p = text; *p != '\0'; p++) {
        if ((unsigned char)*p <= 0x20 || *p == 0x7f) {
            return fail_value(why, text, "has a space or control character in it, and no key has");
        }
    }
    return OK;
}

static size_t identifier_len(const char *text)
{
    size_t n = 0;
    while (is_alnum(text[n]) || text[n] == '_' || text[n] == '$') {
        n++;
    }
    return n;
}

enum err config_value_check_identifier(const char *text, struct reason *why)
{
    size_t n = identifier_len(text);
    if (n == 0 || n > 64 || text[n] != '\0') {
        return fail_value(why, text, "is not a column name: up to 64 letters, digits, '_' and '$'");
    }
    return OK;
}

enum err config_value_check_table(const char *text, struct reason *why)
{
    size_t n = identifier_len(text);
    size_t second = text[n] == '.' ? identifier_len(text + n + 1) : 0;
    size_t total = second > 0 ? n + 1 + second : n;
    if (n == 0 || n > 64 || second > 64 || text[total] != '\0') {
        return fail_value(why, text, "is not a table name: table or schema.table, each up to 64 letters, digits, '_' and '$'");
    }
    return OK;
}

enum err config_value_check_key(const char *text, struct reason *why)
{
    struct key_template key;
    enum err err = key_template_parse(text, &key, why);
    if (err == OK) {
        key_template_deinit(&key);
    }
    return err;
}

/* ---- files ---- */

enum err config_value_check_file(const char *text, struct reason *why)
{
    if (config_value_check_text(text, why) != OK) {
        return ERR_INVALID;
    }
    if (access(text, R_OK) != 0) {
        char quoted[CONFIG_QUOTED_SIZE];
        return config_problems_reason(why, "can not read %s: %s", config_problems_quote(span_str(text), quoted), strerror(errno));
    }
    return OK;
}

enum err config_value_check_directory(const char *text, struct reason *why)
{
    char quoted[CONFIG_QUOTED_SIZE];
    struct stat st;
    if (config_value_check_text(text, why) != OK) {
        return ERR_INVALID;
    }
    config_problems_quote(span_str(text), quoted);
    if (stat(text, &st) == 0) {
        if (!S_ISDIR(st.st_mode)) {
            return config_problems_reason(why, "%s is not a directory", quoted);
        }
        return access(text, R_OK | W_OK | X_OK) == 0 ? OK : config_problems_reason(why, "can not write in %s: %s", quoted, strerror(errno));
    }
    if (errno != ENOENT) {
        return config_problems_reason(why, "can not look at %s: %s", quoted, strerror(errno));
    }
    size_t len = strlen(text);
    while (len > 1 && text[len - 1] == '/') {
        len--;
    }
    while (len > 0 && text[len - 1] != '/') {
        len--;
    }
    char *parent = len == 0 ? xstrdup(".") : xstrndup(text, len);
    bool can_make = access(parent, W_OK | X_OK) == 0;
    int error = errno;
    free(parent);
    return can_make ? OK : config_problems_reason(why, "%s is not there, and can not be made: %s", quoted, strerror(error));
}

/* Reads up to `size` bytes; returns how many, or -1 with errno. */
static ssize_t read_all(int fd, char *out, size_t size)
{
    size_t len = 0;
    while (len < size) {
        ssize_t n = read(fd, out + len, size - len);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return -1;
        }
        if (n == 0) {
            break;
        }
        len += (size_t)n;
    }
    return (ssize_t)len;
}

enum err config_value_secret(const char *path, char **out, struct reason *why)
{
    char quoted[CONFIG_QUOTED_SIZE];
    config_problems_quote(span_str(path), quoted);
    *out = NULL;
    char *text = NULL;
    enum err err = OK;
    struct stat st;
    ssize_t len;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 || fstat(fd, &st) != 0) {
        err = config_problems_reason(why, "can not read %s: %s", quoted, strerror(errno));
        goto out;
    }
    if (!S_ISREG(st.st_mode)) {
        err = config_problems_reason(why, "%s is not a regular file", quoted);
        goto out;
    }
    text = xmalloc(CONFIG_SECRET_MAX + 1);
    len = read_all(fd, text, CONFIG_SECRET_MAX + 1);
    if (len < 0) {
        err = config_problems_reason(why, "can not read %s: %s", quoted, strerror(errno));
    } else if (len > CONFIG_SECRET_MAX) {
        err = config_problems_reason(why, "%s is larger than 64 KiB", quoted);
    } else if (memchr(text, '\0', (size_t)len) != NULL) {
        err = config_problems_reason(why, "%s has a zero byte in it", quoted);
    } else {
        len -= len > 0 && text[len - 1] == '\n' ? 1 : 0;
        len -= len > 0 && text[len - 1] == '\r' ? 1 : 0;
        *out = xstrndup(text, (size_t)len);
    }
out:
    if (text != NULL) {
        explicit_bzero(text, CONFIG_SECRET_MAX + 1);
        free(text);
    }
    if (fd >= 0) {
        close(fd);
    }
    return err;
}
