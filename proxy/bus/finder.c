#include "proxy/bus/finder.h"

#include "common/base.h"

void finder_restart(struct finder *f)
{
    f->is_creating = false;
}

const char *finder_verb(const struct finder *f)
{
    return f->is_creating ? "STREAM.CREATE" : "STREAM.INFO";
}

char *finder_body(const struct finder *f)
{
    if (!f->is_creating) {
        return xstrdup("");
    }
    json_t *config = jetstream_bucket_config(f->stream, f->config);
    char *body = config != NULL ? json_dumps(config, JSON_COMPACT) : NULL;
    json_decref(config);
    return body;
}

enum finder_result finder_on_answer(struct finder *f, enum err err, const struct answer *answer)
{
    bool was_creating = f->is_creating;
    f->is_creating = false;
    if (err == OK) {
        return FINDER_THERE;
    }
    if (jetstream_is_for_later(answer) || (was_creating && answer->err_code == JETSTREAM_STREAM_NAME_EXISTS)) {
        return FINDER_LATER;
    }
    f->is_creating = !was_creating && answer->err_code == JETSTREAM_STREAM_NOT_FOUND;
    return f->is_creating ? FINDER_AGAIN : FINDER_REFUSED;
}
