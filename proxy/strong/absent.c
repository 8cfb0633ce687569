/* Stands in for strong.c until that is there, and goes with it: no region ever has a lease, and no write is prepared. */
#include "proxy/strong/strong.h"

struct strong_write *strong_write_create(enum strong_kind kind, struct span key)
{
    struct strong_write *write = xcalloc(1, sizeof *write);
    write->kind = kind;
    write->key_len = (uint16_t)key.len;
    memcpy(write->key, key.data, key.len);
    return write;
}

void strong_prepare(struct strong *strong, struct strong_write *write)
{
    write->err = ERR_UNAVAILABLE;
    write->on_prepared(write);
}

void strong_finish(struct strong *strong, struct strong_write *write, bool is_settled)
{
    free(write);
}

void strong_task_done(struct strong_task *task, enum err err)
{
    task->err = err;
    task->mail.deliver = task->on_done;
    mailbox_post(task->reply_to, &task->mail);
}
