/* What:    any bytes as a segment of the spool, and as the only one in a directory. What is accepted must keep to its limits and be written again as
 *          it was; recovery neither fails nor makes anything of what is no record, and a second start finds what the first one did.
 */
#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/version.h"
#include "proxy/bus/spool.h"

#define NUMBER 1

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
    if (!holds) {
        abort();
    }
}

static void check_record(const struct spool_record *r, struct span bytes)
{
    char again[SPOOL_RECORD_MAX];
    check(r->id != 0 && (r->debts & ~DEBTS) == 0);
    if (r->kind != SPOOL_CLEARED) {
        check(r->key.len >= 1 && r->key.len <= KEY_MAX && r->version >= 1 && r->version <= VERSION_MAX);
    }
    check(spool_record_len(r) == bytes.len);
    check(spool_record_write(NUMBER, r, again) == bytes.len && memcmp(again, bytes.data, bytes.len) == 0);
}

static uint64_t records_in(struct span segment)
{
    uint64_t count = 0;
    if (!spool_header_check(NUMBER, segment)) {
        return 0;
    }
    for (size_t at = SPOOL_HEADER_LEN;;) {
        struct spool_record r;
        size_t used;
        if (spool_record_parse(NUMBER, span_of(segment.data + at, segment.len - at), &r, &used) != SPOOL_RECORD) {
            return count;
        }
        check(used > 0 && used <= segment.len - at);
        check_record(&r, span_of(segment.data + at, used));
        at += used;
        count++;
    }
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    return remove(path);
}

static uint64_t recover(const char *directory)
{
    char error[600];
    struct spool *spool = NULL;
    struct spool_options options = {directory, 1 << 20, 65536};
    check(spool_open(&options, NULL, &spool, error, sizeof error) == OK);
    uint64_t last = 0;
    uint64_t count = 0;
    for (struct spool_entry *e = spool_first(spool); e != NULL; e = spool_next(spool, e)) {
        check(e->id > last && (e->kind == SPOOL_RESERVED || (e->kind == SPOOL_OWED && e->debts != 0)));
        last = e->id;
        count++;
    }
    struct spool_counts counts;
    spool_count(spool, &counts);
    check(counts.entries == count);
    spool_close(&spool);
    return count;
}

/* With correct checksums, since hardly anything of a fuzzer's has these by itself. */
static void mend(char *bytes, size_t size)
{
    if (size >= SPOOL_HEADER_LEN) {
        spool_header_write(NUMBER, bytes);
    }
    for (size_t at = SPOOL_HEADER_LEN; size >= SPOOL_HEADER_LEN && size - at >= SPOOL_CLEARED_LEN;) {
        size_t len = (uint8_t)bytes[at + 8] + 256U * (uint8_t)bytes[at + 9];
        if (len < SPOOL_CLEARED_LEN || len > SPOOL_RECORD_MAX || len > size - at) {
            return;
        }
        spool_record_mend(NUMBER, bytes + at, len);
        at += len;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 || size > 1 << 16) {
        return 0;
    }
    char *bytes = xstrndup((const char *)data + 1, size - 1);
    if (data[0] & 1) {
        mend(bytes, size - 1);
    }
    uint64_t records = records_in(span_of(bytes, size - 1));
    char directory[] = "/tmp/fuzz-spool-XXXXXX";
    char path[64];
    check(mkdtemp(directory) != NULL);
    snprintf(path, sizeof path, "%s/%016x.spool", directory, NUMBER);
    FILE *f = fopen(path, "wb");
    check(f != NULL && fwrite(bytes, 1, size - 1, f) == size - 1 && fclose(f) == 0);
    uint64_t found = recover(directory);
    check(found <= records && recover(directory) == found);
    nftw(directory, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    free(bytes);
    return 0;
}
