#include "proxy/bus/spool.h"

#include "proxy/bus/spool_files.h"

#define BUFFER_MIN 4096
#define SPARSE 2 /* a segment is written anew when less than half of it is alive */

struct spool {
    struct spool_files files;
    struct log *log;
    uint64_t max_bytes;
    uint64_t segment_bytes;
    uint64_t next_id;
    struct list entries;  /* sorted by id */
    struct list segments; /* sorted by number; the active one, if any, is the last */
    struct segment *active; /* or NULL: the next commit makes one */
    uint64_t bytes;         /* of all segments */
    uint64_t entry_count;
    uint64_t debts[3]; /* how many have a debt to the bus, to the node; how many are reserved */
    uint64_t damages;
    uint64_t failures;
    char problem[256];

    char *buffer; /* records for the segment `buffer_number` */
    size_t buffered;
    size_t buffer_cap;
    uint64_t buffer_number;
    struct list added; /* entries whose first record is in the buffer */
    bool is_durable;   /* something in the buffer must reach the disk */
};

static void unlink_dead(struct spool *s);

/* --- what is alive --- */

static void count(struct spool *s, const struct spool_entry *e, int by)
{
    s->debts[0] += (uint64_t)(e->debts & DEBT_BUS ? by : 0);
    s->debts[1] += (uint64_t)(e->debts & DEBT_NODE ? by : 0);
    s->debts[2] += (uint64_t)(e->kind == SPOOL_RESERVED ? by : 0);
}

static struct spool_entry *entry_create(const struct spool_record *r)
{
    struct spool_entry *e = xcalloc(1, sizeof *e + r->key.len);
    e->id = r->id;
    e->version = r->version;
    e->timestamp_ms = r->timestamp_ms;
    e->sender = r->sender;
    e->message = r->message;
    e->count = r->count;
    e->kind = (uint8_t)r->kind;
    e->debts = r->kind == SPOOL_OWED ? r->debts : 0;
    e->is_pattern = r->is_pattern;
    e->home = HOME_UNKNOWN;
    e->key_len = (uint16_t)r->key.len;
    memcpy(e->key, r->key.data, r->key.len);
    list_init(&e->link);
    return e;
}

static struct spool_record record_of(const struct spool_entry *e)
{
    return (struct spool_record){
        .kind = (enum spool_kind)e->kind,
        .debts = e->debts,
        .id = e->id,
        .version = e->version,
        .timestamp_ms = e->timestamp_ms,
        .sender = e->sender,
        .message = e->message,
        .count = e->count,
        .is_pattern = e->is_pattern,
        .key = span_of(e->key, e->key_len),
    };
}

static size_t live_len(const struct spool_entry *e)
{
    struct spool_record r = record_of(e);
    return spool_record_len(&r);
}

static void come_alive(struct spool *s, struct spool_entry *e, struct segment *segment)
{
    e->segment = segment;
    segment->live++;
    segment->live_bytes += live_len(e);
    s->entry_count++;
    count(s, e, 1);
}

static void move_to(struct spool_entry *e, struct segment *segment)
{
    e->segment->live--;
    e->segment->live_bytes -= live_len(e);
    segment->live++;
    segment->live_bytes += live_len(e);
    e->segment = segment;
}

static void die(struct spool *s, struct spool_entry *e)
{
    if (e->segment != NULL) {
        e->segment->live--;
        e->segment->live_bytes -= live_len(e);
    }
    s->entry_count--;
    count(s, e, -1);
    list_remove(&e->link);
    free(e);
}

/* --- the buffer --- */

static void put(struct spool *s, const struct spool_record *r)
{
    if (s->buffered == 0) { /* a segment is over its size by one commit at most */
        bool is_full = s->active != NULL && s->active->size >= s->segment_bytes;
        if (is_full) {
            segment_seal(s->active);
            s->active = NULL;
        }
        s->buffer_number = s->active != NULL ? s->active->number : s->files.next_number;
    }
    if (s->buffer_cap - s->buffered < SPOOL_RECORD_MAX) {
        s->buffer_cap = MAX(2 * s->buffer_cap, (size_t)BUFFER_MIN);
        char *grown = realloc(s->buffer, s->buffer_cap);
        if (grown == NULL) {
            fputs("out of memory\n", stderr);
            abort();
        }
        s->buffer = grown;
    }
    s->buffered += spool_record_write(s->buffer_number, r, s->buffer + s->buffered);
}

size_t spool_buffered(const struct spool *s)
{
    return s->buffered;
}

/* Every entry has paid for the record that clears it: a full spool can always become empty. */
static bool has_room(const struct spool *s, size_t len)
{
    uint64_t cleared = (s->entry_count + 1) * SPOOL_CLEARED_LEN;
    return s->bytes + s->buffered + SPOOL_HEADER_LEN + len + cleared <= s->max_bytes;
}

enum err spool_add(struct spool *s, const struct spool_record *record, struct spool_entry **out)
{
    struct spool_record r = *record;
    *out = NULL;
    if (!has_room(s, spool_record_len(&r))) {
        return ERR_SPOOL_FULL;
    }
    r.id = s->next_id++;
    put(s, &r);
    struct spool_entry *e = entry_create(&r);
    s->entry_count++;
    count(s, e, 1);
    list_push_back(&s->added, &e->link);
    s->is_durable = true;
    *out = e;
    return OK;
}

void spool_promote(struct spool *s, struct spool_entry *e, uint64_t version, uint8_t debts)
{
    count(s, e, -1);
    e->kind = SPOOL_OWED;
    e->debts = debts;
    e->version = MAX(e->version, version);
    count(s, e, 1);
    struct spool_record r = record_of(e);
    if (has_room(s, spool_record_len(&r))) { /* else a start finds the reservation, which comes to the same */
        put(s, &r);
    }
}

void spool_clear(struct spool *s, struct spool_entry *e, uint8_t debts)
{
    uint8_t left = e->kind == SPOOL_OWED ? (uint8_t)(e->debts & ~debts) : 0;
    struct spool_record r = {.kind = SPOOL_CLEARED, .debts = left == 0 ? DEBTS : debts, .id = e->id};
    put(s, &r);
    if (left == 0) {
        die(s, e);
        return;
    }
    count(s, e, -1);
    e->debts = left;
    count(s, e, 1);
}

void spool_probe(struct spool *s)
{
    put(s, &(struct spool_record){.kind = SPOOL_CLEARED, .debts = DEBTS, .id = s->next_id++});
    s->is_durable = true;
}

/* --- to the disk --- */

static void on_failure(struct spool *s, const char *what, int error)
{
    s->failures++;
    snprintf(s->problem, sizeof s->problem, "%s: %s", what, strerror(error));
    log_error(s->log, "spool: %s: %s: %s", s->files.path, what, strerror(error));
    struct list *link;
    while ((link = list_first(&s->added)) != NULL) {
        die(s, list_entry(link, struct spool_entry, link));
    }
    s->buffered = 0;
    s->is_durable = false;
}

static enum err write_buffer(struct spool *s)
{
    struct segment *segment = s->active;
    const char *what = "can not write";
    int error = 0;
    if (segment == NULL) {
        what = "can not make a new segment";
        error = files_create_segment(&s->files, &segment);
        if (error == 0) {
            list_push_back(&s->segments, &segment->link);
            s->active = segment;
            s->bytes += segment->size;
        }
    }
    if (error == 0) {
        what = "can not write";
        error = segment_append(segment, span_of(s->buffer, s->buffered));
    }
    if (error == 0 && s->is_durable) {
        what = "can not be sure that what was written is on the disk";
        error = segment_sync(segment, s->buffered);
    }
    if (error != 0) {
        if (segment != NULL && segment->fd < 0) {
            s->active = NULL;
            unlink_dead(s);
        }
        on_failure(s, what, error);
        return ERR_SPOOL;
    }
    s->bytes += s->buffered;
    s->buffered = 0;
    s->is_durable = false;
    return OK;
}

static void unlink_dead(struct spool *s)
{
    struct list *it, *tmp;
    bool is_oldest = true;
    list_for_each(it, tmp, &s->segments)
    {
        struct segment *segment = list_entry(it, struct segment, link);
        bool is_dead = segment->live == 0 && segment != s->active;
        /* What is cleared in a segment may be in an older one: without need those come first. */
        if (is_dead && (is_oldest || s->bytes > s->max_bytes / 2)) {
            s->bytes -= segment->size;
            list_remove(&segment->link);
            files_remove_segment(&s->files, segment, s->log);
        } else {
            is_oldest = false;
        }
    }
}

/* What is alive in a segment is written to the active one; the caller commits, and only then is the old one dead. */
static bool renew_sparse(struct spool *s)
{
    struct list *it, *tmp;
    struct segment *sparse = NULL;
    list_for_each(it, tmp, &s->segments)
    {
        struct segment *segment = list_entry(it, struct segment, link);
        if (segment != s->active && segment->live > 0 && segment->live_bytes * SPARSE < segment->size) {
            sparse = segment;
            break;
        }
    }
    if (sparse == NULL || s->active == NULL || s->bytes + sparse->live_bytes > s->max_bytes + s->segment_bytes) {
        return false;
    }
    list_for_each(it, tmp, &s->entries)
    {
        struct spool_entry *e = list_entry(it, struct spool_entry, link);
        if (e->segment == sparse) {
            struct spool_record r = record_of(e);
            put(s, &r);
        }
    }
    s->is_durable = true;
    if (write_buffer(s) != OK) {
        return false;
    }
    list_for_each(it, tmp, &s->entries)
    {
        struct spool_entry *e = list_entry(it, struct spool_entry, link);
        if (e->segment == sparse) {
            move_to(e, s->active);
        }
    }
    return true;
}

enum err spool_commit(struct spool *s)
{
    if (s->buffered == 0) {
        return OK;
    }
    enum err err = write_buffer(s);
    if (err != OK) {
        return err;
    }
    if (s->problem[0] != '\0') {
        log_info(s->log, "spool: %s can be written again", s->files.path);
        s->problem[0] = '\0';
    }
    struct list *link;
    while ((link = list_pop_front(&s->added)) != NULL) {
        struct spool_entry *e = list_entry(link, struct spool_entry, link);
        s->entry_count--;
        count(s, e, -1);
        come_alive(s, e, s->active);
        list_push_back(&s->entries, &e->link);
    }
    unlink_dead(s);
    if (s->bytes > s->max_bytes / 2 && renew_sparse(s)) {
        unlink_dead(s);
    }
    return OK;
}

/* --- the start --- */

struct found {
    struct spool_record record; /* its key is kept apart */
    struct segment *segment;
    size_t position;
    char key[];
};

struct recovery {
    struct spool *spool;
    struct found **list;
    size_t count;
    size_t cap;
};

static void on_record(void *ctx, struct segment *segment, const struct spool_record *record)
{
    struct recovery *r = ctx;
    if (r->count == r->cap) {
        r->cap = MAX(2 * r->cap, (size_t)1024);
        struct found **grown = realloc(r->list, r->cap * sizeof *grown);
        if (grown == NULL) {
            fputs("out of memory\n", stderr);
            abort();
        }
        r->list = grown;
    }
    struct found *f = xcalloc(1, sizeof *f + record->key.len);
    f->record = *record;
    f->segment = segment;
    f->position = r->count;
    if (record->key.len > 0) {
        memcpy(f->key, record->key.data, record->key.len);
    }
    f->record.key.data = f->key;
    r->list[r->count++] = f;
}

static int by_id(const void *a, const void *b)
{
    const struct found *x = *(const struct found *const *)a;
    const struct found *y = *(const struct found *const *)b;
    if (x->record.id != y->record.id) {
        return x->record.id < y->record.id ? -1 : 1;
    }
    return x->position < y->position ? -1 : x->position > y->position;
}

/* All records of one id, in the order in which they were written: what became of it. */
static void settle_one(struct spool *s, struct found *const *list, size_t n)
{
    const struct found *last = NULL;
    uint8_t debts = 0;
    for (size_t i = 0; i < n; i++) {
        const struct found *f = list[i];
        switch (f->record.kind) {
        case SPOOL_RESERVED:
        case SPOOL_OWED:
            last = f;
            debts = f->record.kind == SPOOL_OWED ? f->record.debts : DEBTS;
            break;
        case SPOOL_CLEARED:
            debts &= (uint8_t)~f->record.debts;
            break;
        }
    }
    if (last == NULL || debts == 0) {
        return;
    }
    struct spool_record r = last->record;
    r.debts = debts;
    struct spool_entry *e = entry_create(&r);
    come_alive(s, e, last->segment);
    list_push_back(&s->entries, &e->link);
}

static void settle_all(struct recovery *r)
{
    struct spool *s = r->spool;
    if (r->count > 0) {
        qsort(r->list, r->count, sizeof(struct found *), by_id);
        s->next_id = r->list[r->count - 1]->record.id + 1;
    }
    for (size_t i = 0, n = 0; i < r->count; i += n) {
        for (n = 1; i + n < r->count && r->list[i + n]->record.id == r->list[i]->record.id; n++) {
        }
        settle_one(s, &r->list[i], n);
    }
    for (size_t i = 0; i < r->count; i++) {
        free(r->list[i]);
    }
    free(r->list);
}

enum err spool_open(const struct spool_options *options, struct log *log, struct spool **out, char *error, size_t error_size)
{
    *out = NULL;
    struct spool *s = xcalloc(1, sizeof *s);
    s->log = log;
    s->max_bytes = options->max_bytes;
    s->segment_bytes = options->segment_bytes;
    s->next_id = 1;
    list_init(&s->entries);
    list_init(&s->segments);
    list_init(&s->added);
    struct recovery recovery = {.spool = s};
    struct files_reader reader = {.on_record = on_record, .ctx = &recovery, .log = log};
    enum err err = files_open(&s->files, options->directory, error, error_size);
    if (err == OK) {
        err = files_read(&s->files, &reader, &s->segments, error, error_size);
    }
    s->damages = reader.damages;
    settle_all(&recovery);
    struct list *it, *tmp;
    list_for_each(it, tmp, &s->segments)
    {
        s->bytes += list_entry(it, struct segment, link)->size;
    }
    if (err != OK) {
        spool_close(&s);
        return err;
    }
    unlink_dead(s);
    *out = s;
    return OK;
}

void spool_close(struct spool **out)
{
    struct spool *s = *out;
    struct list *link;
    *out = NULL;
    if (s == NULL) {
        return;
    }
    while ((link = list_pop_front(&s->added)) != NULL || (link = list_pop_front(&s->entries)) != NULL) {
        free(list_entry(link, struct spool_entry, link));
    }
    while ((link = list_pop_front(&s->segments)) != NULL) {
        segment_destroy(list_entry(link, struct segment, link));
    }
    files_close(&s->files);
    free(s->buffer);
    free(s);
}

/* --- looking at it --- */

struct spool_entry *spool_first(struct spool *s)
{
    struct list *link = list_first(&s->entries);
    return link == NULL ? NULL : list_entry(link, struct spool_entry, link);
}

struct spool_entry *spool_next(struct spool *s, struct spool_entry *e)
{
    return e->link.next == &s->entries ? NULL : list_entry(e->link.next, struct spool_entry, link);
}

void spool_count(const struct spool *s, struct spool_counts *out)
{
    *out = (struct spool_counts){
        .entries = s->entry_count,
        .reserved = s->debts[2],
        .owed_to_bus = s->debts[0],
        .owed_to_nodes = s->debts[1],
        .bytes = s->bytes,
        .damages = s->damages,
        .failures = s->failures,
    };
}

const char *spool_problem(const struct spool *s)
{
    return s->problem[0] != '\0' ? s->problem : NULL;
}
