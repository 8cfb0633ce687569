#include "proxy/database/loads.h"

#include "common/clock.h"

#define SUSPECT_ATTEMPTS 2
#define LOOK_MAX 1024 /* how far into the queue for others of the same namespace */

void loads_init(struct loads *loads, uint32_t limit, struct metrics_shard *metrics)
{
    uint32_t buckets = 64;
    while (buckets < limit) {
        buckets *= 2;
    }
    *loads = (struct loads){.limit = limit, .bucket_mask = buckets - 1, .metrics = metrics};
    loads->buckets = xcalloc(buckets, sizeof *loads->buckets);
}

void loads_deinit(struct loads *loads)
{
    free(loads->buckets);
    loads->buckets = NULL;
}

/* --- the table --- */

static struct load **bucket_of(const struct loads *loads, const struct load *load)
{
    /* FNV-1a. Who would make keys collide would have to know their leases beforehand. */
    uint64_t h = 0xcbf29ce484222325ULL ^ load->lease ^ ((uint64_t)load->namespace << 48);
    for (size_t i = 0; i < load->key_len; i++) {
        h = (h ^ (unsigned char)load->key[i]) * 0x100000001b3ULL;
    }
    return &loads->buckets[(h ^ h >> 32) & loads->bucket_mask];
}

static void add(struct loads *loads, struct load *load)
{
    if (load->lease != 0) {
        struct load **bucket = bucket_of(loads, load);
        load->in_bucket = *bucket;
        *bucket = load;
    }
}

static void take_out(struct loads *loads, struct load *load)
{
    if (load->lease != 0) {
        struct load **at = bucket_of(loads, load);
        while (*at != load) {
            at = &(*at)->in_bucket;
        }
        *at = load->in_bucket;
    }
}

static struct load *find(struct loads *loads, const struct load *like)
{
    struct load *load = *bucket_of(loads, like);
    while (load != NULL) {
        bool is_same_key = span_eq(span_of(load->key, load->key_len), span_of(like->key, like->key_len));
        if (load->lease == like->lease && load->namespace == like->namespace && is_same_key) {
            break;
        }
        load = load->in_bucket;
    }
    return load;
}

/* --- the queue --- */

static void set_queued(struct loads *loads, uint32_t queued)
{
    loads->queued = queued;
    metrics_set(loads->metrics, METRIC_DATABASE_QUEUE, 0, queued);
}

void loads_hold(struct loads *loads, struct loader_intake *intake, struct load *load)
{
    load->next = NULL;
    if (intake->tail != NULL) {
        intake->tail->next = load;
    } else {
        intake->head = load;
    }
    intake->tail = load;
    intake->count++;
    loads->held++;
    add(loads, load);
}

static void append(struct load_queue *queue, struct load *load)
{
    load->next = NULL;
    if (queue->tail != NULL) {
        queue->tail->next = load;
    } else {
        queue->head = load;
    }
    queue->tail = load;
}

void loads_release(struct loads *loads, struct loader_intake *intake)
{
    struct load *load = intake->head;
    while (load != NULL) {
        struct load *next = load->next;
        append(&loads->queues[load->host], load);
        load = next;
    }
    loads->held -= intake->count;
    set_queued(loads, loads->queued + intake->count);
    *intake = (struct loader_intake){0};
}

void loads_push_back(struct loads *loads, struct load *load)
{
    struct load_queue *queue = &loads->queues[load->host];
    load->next = queue->head;
    queue->head = load;
    if (queue->tail == NULL) {
        queue->tail = load;
    }
    set_queued(loads, loads->queued + 1);
}

void loads_move_late(struct loads *loads, uint64_t now_us, uint64_t *next_us)
{
    struct load *load = loads->queues[HOST_REPLICA].head;
    loads->queues[HOST_REPLICA] = (struct load_queue){0};
    while (load != NULL) {
        struct load *next = load->next;
        if (load->replica_until_us <= now_us) {
            load->host = HOST_PRIMARY;
        } else {
            *next_us = MIN(*next_us, load->replica_until_us);
        }
        append(&loads->queues[load->host], load);
        load = next;
    }
}

void loads_move(struct loads *loads)
{
    uint64_t next_us = 0;
    loads_move_late(loads, UINT64_MAX, &next_us);
}

static bool is_suspect(const struct load *load)
{
    return load->attempts >= SUSPECT_ATTEMPTS;
}

uint32_t loads_pop(struct loads *loads, enum host_kind host, struct load **out, uint32_t max)
{
    uint32_t count = 0;
    struct load *before = NULL;
    struct load_queue *queue = &loads->queues[host];
    struct load *load = queue->head;
    for (uint32_t looked = 0; load != NULL && count < max && looked < LOOK_MAX; looked++) {
        struct load *next = load->next;
        bool is_wanted = count == 0 || (load->namespace == out[0]->namespace && load->is_locking == out[0]->is_locking && !is_suspect(load) && !is_suspect(out[0]));
        if (is_wanted) {
            if (before != NULL) {
                before->next = next;
            } else {
                queue->head = next;
            }
            queue->tail = next == NULL ? before : queue->tail;
            load->next = NULL;
            out[count++] = load;
        } else {
            before = load;
        }
        load = next;
    }
    set_queued(loads, loads->queued - count);
    return count;
}

bool loads_join(struct loads *loads, struct load *load)
{
    struct load *under_way = load->lease != 0 && !loads_is_full(loads) ? find(loads, load) : NULL;
    if (under_way == NULL) {
        return false;
    }
    load->version = under_way->version;
    load->next = under_way->joined;
    under_way->joined = load;
    loads->joined++;
    return true;
}

void loads_detach(struct loads *loads, struct load *load)
{
    take_out(loads, load);
    for (struct load *j = load->joined; j != NULL; j = j->next) {
        loads->joined--;
    }
}

struct load *loads_fail(struct loads *loads, enum host_kind host, enum err err, const char *text)
{
    struct load *list = loads->queues[host].head;
    uint32_t count = 0;
    for (struct load *load = list; load != NULL; load = load->next) {
        loads_detach(loads, load);
        load_set_error(load, err, text);
        count++;
    }
    loads->queues[host] = (struct load_queue){0};
    set_queued(loads, loads->queued - count);
    return list;
}

/* --- deadlines --- */

static struct load *expire(struct load *load, const char *text, struct load *list)
{
    load_set_error(load, ERR_TIMEOUT, text);
    load->next = list;
    return load;
}

struct load *loads_expire_joined(struct loads *loads, struct load *load, uint64_t now_us, uint64_t *next_us, struct load *list)
{
    struct load **at = &load->joined;
    while (*at != NULL) {
        struct load *j = *at;
        if (j->deadline_us <= now_us) {
            *at = j->next;
            loads->joined--;
            list = expire(j, "timed out waiting for another load of the same key", list);
        } else {
            *next_us = MIN(*next_us, j->deadline_us);
            at = &j->next;
        }
    }
    return list;
}

static struct load *expire_queue(struct loads *loads, struct load_queue *queue, uint64_t now_us, uint64_t *next_us, struct load *list)
{
    struct load **at = &queue->head;
    queue->tail = NULL;
    while (*at != NULL) {
        struct load *load = *at;
        list = loads_expire_joined(loads, load, now_us, next_us, list);
        if (load->deadline_us <= now_us) {
            *at = load->next;
            loads_detach(loads, load);
            list = expire(load, "timed out in the queue for a database connection", list);
            loads->queued--;
        } else {
            *next_us = MIN(*next_us, load->deadline_us);
            at = &load->next;
            queue->tail = load;
        }
    }
    return list;
}

struct load *loads_expire(struct loads *loads, uint64_t now_us, uint64_t *next_us, struct load *list)
{
    for (int host = 0; host < HOSTS; host++) {
        list = expire_queue(loads, &loads->queues[host], now_us, next_us, list);
    }
    set_queued(loads, loads->queued);
    return list;
}

/* --- results --- */

void load_clear_result(struct load *load)
{
    load->err = OK;
    load->error[0] = '\0';
    load->found = false;
    load->flags = 0;
    load->expires_in_s = -1;
    load->value = NULL;
    load->value_len = 0;
}

void load_set_error(struct load *load, enum err err, const char *text)
{
    load->err = err;
    snprintf(load->error, sizeof load->error, "%s", text);
}

/* Each submitter gets a chunk of its own: a chunk's references are not counted across threads. */
static void copy_result(struct load *to, const struct load *from)
{
    load_set_error(to, from->err, from->error);
    to->version = from->version;
    to->found = from->found;
    to->flags = from->flags;
    to->expires_in_s = from->expires_in_s;
    if (from->found) {
        to->value = chunk_get(NULL, from->value_len + ROW_VALUE_SLACK);
        if (to->value == NULL) {
            to->found = false;
            load_set_error(to, ERR_NOMEM, err_text(ERR_NOMEM));
            return;
        }
        memcpy(to->value->data, from->value->data, from->value_len);
        to->value_len = from->value_len;
    }
}

static void deliver(struct mail *mail, void *owner)
{
    struct load *load = container_of(mail, struct load, mail);
    load->on_done(load);
}

static void post(struct metrics_shard *metrics, struct load *load)
{
    if (load->err != OK) {
        metrics_add(metrics, METRIC_ERRORS, metric_index2(SOURCE_DATABASE, ERR_COUNT, load->err), 1);
    }
    metrics_observe(metrics, METRIC_DATABASE_SECONDS, load->namespace, clock_mono_us() - load->submitted_us);
    load->mail.deliver = deliver;
    mailbox_post(load->reply_to, &load->mail);
}

void loads_finish(struct metrics_shard *metrics, struct load *list)
{
    while (list != NULL) {
        struct load *load = list;
        struct load *joined = load->joined;
        list = load->next;
        while (joined != NULL) {
            struct load *next = joined->next;
            copy_result(joined, load);
            post(metrics, joined);
            joined = next;
        }
        post(metrics, load);
    }
}
