#include "proxy/admin/access.h"

#include <strings.h>

#define BEARER "Bearer "
#define BODY_MAX (64UL << 10) /* of what is no value */
#define JOB_BODY_MAX (1UL << 20) /* of an invalidation of many */

bool access_is_granted(const char *authorization, const char *token)
{
    if (token == NULL) {
        return true;
    }
    if (authorization == NULL || strncasecmp(authorization, BEARER, sizeof BEARER - 1) != 0) {
        return false;
    }
    const char *given = authorization + sizeof BEARER - 1;
    size_t given_len = strlen(given);
    size_t len = strlen(token);
    volatile unsigned different = given_len != len; /* volatile: no compiler may stop at the first difference */
    for (size_t i = 0; i < len; i++) {
        different |= (unsigned char)token[i] ^ (unsigned char)given[i < given_len ? i : given_len];
    }
    return different == 0;
}

static bool is_open(const char *uri)
{
    struct span path = span_of(uri, strcspn(uri, "?"));
    return span_eq(path, SPAN_LIT("/healthz")) || span_eq(path, SPAN_LIT("/readyz"));
}

size_t access_body_max(const char *uri, size_t value_max)
{
    static const struct span cache = SPAN_LIT("/cache/");
    if (strncmp(uri, cache.data, cache.len) == 0) {
        return MAX(value_max, BODY_MAX);
    }
    return span_eq(span_of(uri, strcspn(uri, "?")), SPAN_LIT("/invalidate")) ? JOB_BODY_MAX : BODY_MAX;
}

const struct access_refusal *access_judge(const struct access *access)
{
    static const struct access_refusal untrusted = {401, "unauthorized", "this needs a header \"Authorization: Bearer TOKEN\" with the right token"};
    static const struct access_refusal too_large = {413, "too_large", "the body is too large"};
    static const struct access_refusal too_many = {429, "too_many_requests", "too many large bodies are under way"};
    if (!access->is_trusted && !is_open(access->uri)) {
        return &untrusted;
    }
    if (access->body_len > access->body_max) {
        return &too_large;
    }
    return access->body_len > access->bodies_left ? &too_many : NULL;
}
