#include "proxy/bus/spool_files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAME_SIZE 32
#define ENDING ".spool"
#define SEGMENT_MAX (2ULL << 30) /* larger than any configuration makes them */
#define SEGMENTS_MAX 1000000

/* --- one segment --- */

static void name_of(uint64_t number, const char *ending, char out[static NAME_SIZE])
{
    snprintf(out, NAME_SIZE, "%016" PRIx64 "%s", number, ending);
}

static struct segment *segment_make(uint64_t number, int fd, uint64_t size)
{
    struct segment *segment = xcalloc(1, sizeof *segment);
    list_init(&segment->link);
    segment->number = number;
    segment->fd = fd;
    segment->size = size;
    return segment;
}

void segment_seal(struct segment *segment)
{
    if (segment->fd >= 0) {
        close(segment->fd);
        segment->fd = -1;
    }
}

void segment_destroy(struct segment *segment)
{
    segment_seal(segment);
    free(segment);
}

static int write_all(int fd, struct span bytes)
{
    while (bytes.len > 0) {
        ssize_t n = write(fd, bytes.data, bytes.len);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return n < 0 ? errno : ENOSPC;
        }
        bytes = span_of(bytes.data + n, bytes.len - (size_t)n);
    }
    return 0;
}

/* Back to what was good. Where even that fails nothing more is written behind it. */
static void cut(struct segment *segment, bool is_sealed)
{
    bool is_cut = ftruncate(segment->fd, (off_t)segment->size) == 0 && lseek(segment->fd, (off_t)segment->size, SEEK_SET) >= 0;
    if (!is_cut || is_sealed) {
        segment_seal(segment);
    }
}

int segment_append(struct segment *segment, struct span bytes)
{
    int error = write_all(segment->fd, bytes);
    if (error != 0) {
        cut(segment, false);
        return error;
    }
    segment->size += bytes.len;
    return 0;
}

int segment_sync(struct segment *segment, size_t newest)
{
    if (fdatasync(segment->fd) == 0) {
        return 0;
    }
    int error = errno;
    segment->size -= newest;
    cut(segment, true); /* what the kernel has of the file, and what the disk has, is not known any more */
    return error;
}

/* --- the directory --- */

static enum err fail(char *error, size_t size, const char *path, const char *what)
{
    snprintf(error, size, "%s: %s: %s", path, what, strerror(errno));
    return ERR_IO;
}

/* A file can be made and be brought to the disk: better to know now than at the first outage. */
static int try_to_write(struct spool_files *f)
{
    int fd = openat(f->directory_fd, "trial", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) {
        return errno;
    }
    int error = write_all(fd, SPAN_LIT("trial"));
    if (error == 0 && fdatasync(fd) != 0) {
        error = errno;
    }
    close(fd);
    unlinkat(f->directory_fd, "trial", 0);
    return error;
}

enum err files_open(struct spool_files *f, const char *path, char *error, size_t error_size)
{
    *f = (struct spool_files){.path = path, .directory_fd = -1, .lock_fd = -1, .next_number = 1};
    if (mkdir(path, 0700) != 0 && errno != EEXIST) {
        return fail(error, error_size, path, "can not make the directory");
    }
    f->directory_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (f->directory_fd < 0) {
        return fail(error, error_size, path, "can not open the directory");
    }
    f->lock_fd = openat(f->directory_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (f->lock_fd < 0) {
        return fail(error, error_size, path, "can not write in the directory");
    }
    if (flock(f->lock_fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno == EWOULDBLOCK) {
            snprintf(error, error_size, "%s: another process uses this directory: every sidecar needs one of its own", path);
            return ERR_IO;
        }
        return fail(error, error_size, path, "can not lock the directory");
    }
    int problem = try_to_write(f);
    if (problem == ENOSPC || problem == EDQUOT || problem == EFBIG) {
        return OK; /* it starts, and says so as soon as something is to be written; what is there is replayed, which makes room */
    }
    errno = problem;
    return problem == 0 ? OK : fail(error, error_size, path, "can not write in the directory");
}

void files_close(struct spool_files *f)
{
    if (f->lock_fd >= 0) {
        close(f->lock_fd);
    }
    if (f->directory_fd >= 0) {
        close(f->directory_fd);
    }
    f->lock_fd = f->directory_fd = -1;
}

int files_create_segment(struct spool_files *f, struct segment **out)
{
    char name[NAME_SIZE];
    char header[SPOOL_HEADER_LEN];
    *out = NULL;
    name_of(f->next_number, ENDING, name);
    int fd = openat(f->directory_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        return errno;
    }
    spool_header_write(f->next_number, header);
    int error = write_all(fd, span_of(header, sizeof header));
    if (error == 0 && fsync(f->directory_fd) != 0) {
        error = errno;
    }
    if (error != 0) {
        close(fd);
        unlinkat(f->directory_fd, name, 0);
        return error;
    }
    *out = segment_make(f->next_number++, fd, SPOOL_HEADER_LEN);
    return 0;
}

void files_remove_segment(struct spool_files *f, struct segment *segment, struct log *log)
{
    char name[NAME_SIZE];
    char bad[NAME_SIZE];
    name_of(segment->number, ENDING, name);
    name_of(segment->number, ".bad", bad);
    int result = segment->is_damaged ? renameat(f->directory_fd, name, f->directory_fd, bad) : unlinkat(f->directory_fd, name, 0);
    if (result != 0 && errno != ENOENT) {
        log_warn(log, "spool: %s/%s can not be removed: %s; what is in it is published again at the next start", f->path, name,
                 strerror(errno));
    }
    segment_destroy(segment);
}

/* --- reading --- */

static bool parse_name(const char *name, uint64_t *number)
{
    char again[NAME_SIZE];
    char *end;
    *number = strtoull(name, &end, 16);
    name_of(*number, ENDING, again);
    return *number > 0 && *number < UINT64_MAX && strcmp(name, again) == 0;
}

static int by_number(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static enum err list_numbers(struct spool_files *f, uint64_t **numbers, size_t *count, char *error, size_t error_size)
{
    *numbers = NULL;
    *count = 0;
    DIR *dir = opendir(f->path);
    if (dir == NULL) {
        return fail(error, error_size, f->path, "can not read the directory");
    }
    const struct dirent *d;
    while ((d = readdir(dir)) != NULL && *count < SEGMENTS_MAX) {
        uint64_t number;
        if (!parse_name(d->d_name, &number)) {
            continue;
        }
        if ((*count & (*count + 1)) == 0) {
            uint64_t *grown = realloc(*numbers, (2 * *count + 2) * sizeof *grown);
            if (grown == NULL) {
                closedir(dir);
                free(*numbers);
                return ERR_NOMEM;
            }
            *numbers = grown;
        }
        (*numbers)[(*count)++] = number;
    }
    closedir(dir);
    if (*count > 0) {
        qsort(*numbers, *count, sizeof **numbers, by_number);
    }
    return OK;
}

/* As much of a file as can be read, malloc'ed. */
static char *read_all(int fd, size_t size, size_t *len)
{
    char *bytes = malloc(size + 1);
    *len = 0;
    while (bytes != NULL && *len < size) {
        ssize_t n = read(fd, bytes + *len, size - *len);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            break;
        }
        *len += (size_t)n;
    }
    return bytes;
}

/* Where the records end, and how. */
static enum spool_parse read_records(struct files_reader *reader, struct segment *segment, struct span bytes, size_t *end)
{
    *end = 0;
    if (bytes.len == 0) {
        return SPOOL_END; /* it was cut off to nothing, at an earlier start */
    }
    if (!spool_header_check(segment->number, bytes)) {
        return bytes.len < SPOOL_HEADER_LEN ? SPOOL_TORN : SPOOL_BAD;
    }
    *end = SPOOL_HEADER_LEN;
    for (;;) {
        struct spool_record record;
        size_t used;
        enum spool_parse result = spool_record_parse(segment->number, span_of(bytes.data + *end, bytes.len - *end), &record, &used);
        if (result != SPOOL_RECORD) {
            return result;
        }
        reader->on_record(reader->ctx, segment, &record);
        *end += used;
    }
}

static void on_damage(struct files_reader *reader, struct spool_files *f, struct segment *segment, size_t end, const char *what)
{
    reader->damages++;
    segment->is_damaged = true;
    log_error(reader->log,
              "spool: %s/%016" PRIx64 ENDING ": %s at byte %zu of %" PRIu64 ": the invalidations behind it are lost; other regions, and this "
              "one's pool, may serve what they were about until it expires",
              f->path, segment->number, what, end, segment->size);
}

static void read_segment(struct spool_files *f, struct files_reader *reader, struct segment *segment, bool is_newest)
{
    size_t len = 0;
    size_t end = 0;
    char *bytes = segment->size <= SEGMENT_MAX ? read_all(segment->fd, segment->size, &len) : NULL;
    if (bytes == NULL) {
        on_damage(reader, f, segment, 0, "can not be read");
        return;
    }
    enum spool_parse result = read_records(reader, segment, span_of(bytes, len), &end);
    free(bytes);
    if (len < segment->size) {
        on_damage(reader, f, segment, len, "an input/output error");
    } else if (result == SPOOL_TORN && is_newest) {
        log_info(reader->log, "spool: the last write before the end was cut off: %zu bytes that nobody was promised are dropped", len - end);
        if (ftruncate(segment->fd, (off_t)end) == 0 && fdatasync(segment->fd) == 0) {
            segment->size = end;
        }
    } else if (result != SPOOL_END) {
        on_damage(reader, f, segment, end, "a record that is damaged");
    }
}

enum err files_read(struct spool_files *f, struct files_reader *reader, struct list *segments, char *error, size_t error_size)
{
    uint64_t *numbers;
    size_t count;
    enum err err = list_numbers(f, &numbers, &count, error, error_size);
    for (size_t i = 0; i < count && err == OK; i++) {
        char name[NAME_SIZE];
        struct stat st;
        name_of(numbers[i], ENDING, name);
        int fd = openat(f->directory_fd, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0 || fstat(fd, &st) != 0) {
            snprintf(error, error_size, "%s/%s: can not be opened: %s", f->path, name, strerror(errno));
            err = ERR_IO;
            if (fd >= 0) {
                close(fd);
            }
            break;
        }
        struct segment *segment = segment_make(numbers[i], fd, (uint64_t)st.st_size);
        list_push_back(segments, &segment->link);
        read_segment(f, reader, segment, i + 1 == count);
        segment_seal(segment);
        f->next_number = numbers[i] + 1;
    }
    free(numbers);
    return err;
}
