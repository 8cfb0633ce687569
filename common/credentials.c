#include "common/credentials.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#define TEXT_MAX ((size_t)CREDENTIALS_MAX * (CREDENTIALS_LINE_MAX + 2)) /* of a file whose lines end with "\r\n" */
#define BLOCK_WORDS 32

/* User, a zero byte, password, zero bytes: all are of one size, so that all are compared alike. A line always leaves one zero at the end. */
struct block {
    uint64_t words[BLOCK_WORDS];
};

static_assert(sizeof(struct block) == CREDENTIALS_LINE_MAX + 1, "a line and the zero byte behind it fit a block");

struct table {
    uint32_t references; /* under the mutex */
    uint32_t count;
    struct block entries[];
};

/* What a file can be told from another by. */
struct stamp {
    bool is_there;
    dev_t device;
    ino_t inode;
    off_t size;
    struct timespec changed;
};

struct credentials {
    char *path;
    pthread_mutex_t mutex; /* of `table` and the references to tables; held for a moment, never while comparing */
    struct table *table;
    struct stamp stamp;
    bool is_exposed;
};

/* False, and all zero, for what can be no line of the file. */
static bool block_make(struct block *block, struct span user, struct span password)
{
    memset(block, 0, sizeof *block);
    if (user.len == 0 || password.len == 0 || user.len > CREDENTIALS_LINE_MAX || password.len > CREDENTIALS_LINE_MAX - 1 ||
        user.len + 1 + password.len > CREDENTIALS_LINE_MAX || memchr(user.data, '\0', user.len) != NULL ||
        memchr(password.data, '\0', password.len) != NULL) {
        return false;
    }
    char *bytes = (char *)block->words;
    memcpy(bytes, user.data, user.len);
    memcpy(bytes + user.len + 1, password.data, password.len);
    return true;
}

/* 1 or 0, without a branch. */
static uint64_t block_is_equal(const struct block *a, const struct block *b)
{
    uint64_t different = 0;
    for (int i = 0; i < BLOCK_WORDS; i++) {
        different |= a->words[i] ^ b->words[i];
    }
    return ((different | (0 - different)) >> 63) ^ 1;
}

static void table_destroy(struct table *table)
{
    if (table != NULL) {
        explicit_bzero(table->entries, table->count * sizeof table->entries[0]);
        free(table);
    }
}

/* ---- the file ---- */

static struct stamp stamp_of(const struct stat *st)
{
    return (struct stamp){.is_there = true, .device = st->st_dev, .inode = st->st_ino, .size = st->st_size, .changed = st->st_mtim};
}

static struct stamp stamp_at(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 ? stamp_of(&st) : (struct stamp){.is_there = false};
}

static bool stamp_is_same(const struct stamp *a, const struct stamp *b)
{
    if (!a->is_there || !b->is_there) {
        return a->is_there == b->is_there;
    }
    return a->device == b->device && a->inode == b->inode && a->size == b->size && a->changed.tv_sec == b->changed.tv_sec &&
           a->changed.tv_nsec == b->changed.tv_nsec;
}

/* No message shows what stands in a line. */
static enum err take_line(const char *path, uint32_t number, struct span line, struct table *table, struct reason *why)
{
    if (line.len > CREDENTIALS_LINE_MAX) {
        return config_problems_reason(why, "%s:%u: is longer than %d bytes", path, number, CREDENTIALS_LINE_MAX);
    }
    if (line.len == 0) {
        return config_problems_reason(why, "%s:%u: is empty; every line is user:password", path, number);
    }
    for (size_t i = 0; i < line.len; i++) {
        if ((unsigned char)line.data[i] < ' ' || line.data[i] == 0x7f) {
            return config_problems_reason(why, "%s:%u: has a control character in it", path, number);
        }
    }
    const char *colon = memchr(line.data, ':', line.len);
    if (colon == NULL) {
        return config_problems_reason(why, "%s:%u: has no \":\"; every line is user:password", path, number);
    }
    if (table->count == CREDENTIALS_MAX) {
        return config_problems_reason(why, "%s:%u: is one more than %d users", path, number, CREDENTIALS_MAX);
    }
    struct span user = span_of(line.data, (size_t)(colon - line.data));
    struct span password = span_of(colon + 1, line.len - user.len - 1);
    if (!block_make(&table->entries[table->count], user, password)) {
        return config_problems_reason(why, "%s:%u: has no %s", path, number, user.len == 0 ? "user before the \":\"" : "password behind the \":\"");
    }
    table->count++;
    return OK;
}

static enum err take_text(const char *path, struct span text, struct table *table, struct reason *why)
{
    uint32_t number = 0;
    enum err err = OK;
    for (size_t at = 0; at < text.len && err == OK;) {
        const char *start = text.data + at;
        const char *newline = memchr(start, '\n', text.len - at);
        size_t len = newline != NULL ? (size_t)(newline - start) : text.len - at;
        at += len + 1;
        len -= len > 0 && start[len - 1] == '\r' ? 1 : 0;
        err = take_line(path, ++number, span_of(start, len), table, why);
    }
    if (err == OK && table->count == 0) {
        err = config_problems_reason(why, "%s: is empty: nobody could use the cache", path);
    }
    return err;
}

/* Up to `size` bytes; -1 with errno. */
static ssize_t read_up_to(int fd, char *out, size_t size)
{
    size_t len = 0;
    while (len < size) {
        ssize_t n = read(fd, out + len, size - len);
        if (n < 0 && errno != EINTR) {
            return -1;
        }
        if (n == 0) {
            break;
        }
        len += n > 0 ? (size_t)n : 0;
    }
    return (ssize_t)len;
}

static enum err load(const char *path, struct table **out, struct stamp *stamp, bool *is_exposed, struct reason *why)
{
    struct table *table = xcalloc(1, sizeof *table + CREDENTIALS_MAX * sizeof table->entries[0]);
    char *text = xmalloc(TEXT_MAX + 1);
    struct stat st;
    ssize_t len = 0;
    enum err err = OK;
    *out = NULL;
    *stamp = stamp_at(path); /* for one that can not be opened */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 || fstat(fd, &st) != 0) {
        err = config_problems_reason(why, "can not read %s: %s", path, strerror(errno));
        goto out;
    }
    *stamp = stamp_of(&st);
    *is_exposed = (st.st_mode & S_IROTH) != 0;
    if (!S_ISREG(st.st_mode)) { /* no pipe can hang us */
        err = config_problems_reason(why, "%s is not a regular file", path);
        goto out;
    }
    len = read_up_to(fd, text, TEXT_MAX + 1);
    if (len < 0) {
        err = config_problems_reason(why, "can not read %s: %s", path, strerror(errno));
    } else if ((size_t)len > TEXT_MAX) {
        err = config_problems_reason(why, "%s is larger than %zu bytes", path, TEXT_MAX);
    } else {
        err = take_text(path, span_of(text, (size_t)len), table, why);
    }
out:
    if (fd >= 0) {
        close(fd);
    }
    if (err != OK) {
        table_destroy(table);
        table = NULL;
    }
    explicit_bzero(text, len > 0 ? (size_t)len : 0);
    free(text);
    *out = table;
    return err;
}

/* ---- the table in force ---- */

static struct table *acquire(struct credentials *c)
{
    pthread_mutex_lock(&c->mutex);
    struct table *table = c->table;
    table->references++;
    pthread_mutex_unlock(&c->mutex);
    return table;
}

static void release(struct credentials *c, struct table *table)
{
    pthread_mutex_lock(&c->mutex);
    bool is_last = --table->references == 0;
    pthread_mutex_unlock(&c->mutex);
    if (is_last) {
        table_destroy(table);
    }
}

enum err credentials_open(const char *path, struct credentials **out, struct reason *why)
{
    struct credentials *c = xcalloc(1, sizeof *c);
    enum err err = load(path, &c->table, &c->stamp, &c->is_exposed, why);
    *out = NULL;
    if (err != OK) {
        free(c);
        return err;
    }
    c->path = xstrdup(path);
    c->table->references = 1;
    pthread_mutex_init(&c->mutex, NULL);
    *out = c;
    return OK;
}

void credentials_close(struct credentials **credentials)
{
    struct credentials *c = *credentials;
    *credentials = NULL;
    if (c != NULL) {
        release(c, c->table);
        pthread_mutex_destroy(&c->mutex);
        free(c->path);
        free(c);
    }
}

enum err credentials_reload(struct credentials *c, struct reason *why)
{
    struct table *table;
    enum err err = load(c->path, &table, &c->stamp, &c->is_exposed, why);
    if (err != OK) {
        return err;
    }
    table->references = 1;
    pthread_mutex_lock(&c->mutex);
    struct table *old = c->table;
    c->table = table;
    pthread_mutex_unlock(&c->mutex);
    release(c, old);
    return OK;
}

bool credentials_is_outdated(const struct credentials *c)
{
    struct stamp now = stamp_at(c->path);
    return !stamp_is_same(&now, &c->stamp);
}

bool credentials_is_exposed(const struct credentials *c)
{
    return c->is_exposed;
}

uint32_t credentials_count(const struct credentials *c)
{
    return c->table->count;
}

const char *credentials_path(const struct credentials *c)
{
    return c->path;
}

bool credentials_match(struct credentials *c, struct span user, struct span password)
{
    struct block wanted;
    bool is_sound = block_make(&wanted, user, password); /* if not, it is compared all the same */
    struct table *table = acquire(c);
    uint64_t found = 0;
    for (uint32_t i = 0; i < table->count; i++) {
        found |= block_is_equal(&table->entries[i], &wanted);
    }
    release(c, table);
    explicit_bzero(&wanted, sizeof wanted);
    return is_sound && found != 0;
}
