#include "proxy/admin/access.h"

#include <strings.h>

#define BEARER "Bearer "

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
