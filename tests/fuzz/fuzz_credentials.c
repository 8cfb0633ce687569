/* What:    any bytes as a file of users and passwords. It is read or refused with a reason of one line; every line of one that is read lets its
 *          own pair in, and nothing else that is close to it.
 * Threads: one.
 */
#include <sys/mman.h>
#include <unistd.h>

#include "common/credentials.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void promise(bool kept)
{
    if (!kept) {
        abort();
    }
}

static void look_at(struct credentials *c, struct span text)
{
    uint32_t lines = 0;
    for (size_t at = 0; at < text.len; lines++) {
        const char *line = text.data + at;
        const char *newline = memchr(line, '\n', text.len - at);
        size_t len = newline != NULL ? (size_t)(newline - line) : text.len - at;
        at += len + 1;
        len -= len > 0 && line[len - 1] == '\r' ? 1 : 0;
        const char *colon = memchr(line, ':', len);
        promise(colon != NULL && colon > line);
        struct span user = span_of(line, (size_t)(colon - line));
        struct span password = span_of(colon + 1, len - user.len - 1);
        promise(credentials_match(c, user, password));
        promise(!credentials_match(c, span_of(line, len), password) && !credentials_match(c, user, span_of("\x01", 1)));
        promise(!credentials_match(c, user, span_of(password.data, 0)));
    }
    promise(lines == credentials_count(c) && lines > 0 && lines <= CREDENTIALS_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int fd = -1;
    static char path[64];
    if (fd < 0) {
        fd = memfd_create("users", MFD_CLOEXEC);
        promise(fd >= 0);
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    }
    promise(ftruncate(fd, 0) == 0 && pwrite(fd, data, size, 0) == (ssize_t)size);
    struct credentials *c = NULL;
    struct reason why;
    enum err err = credentials_open(path, &c, &why);
    promise(err == OK ? c != NULL : c == NULL && why.text[0] != '\0' && strchr(why.text, '\n') == NULL);
    if (err == OK) {
        look_at(c, span_of((const char *)data, size));
    }
    credentials_close(&c);
    return 0;
}
