#include "common/glob.h"
#include "proxy/strong/strong.h"

/* Too often rather than not at all: what a longer prefix takes out of a strong namespace is not looked at, nor what comes behind the literal prefix
 * of a pattern. */
bool strong_is_concerned(const struct config *config, struct span pattern)
{
    char text[GLOB_MAX];
    struct glob_prefix prefix = glob_prefix(pattern, text);
    struct span begin = span_of(text, prefix.len);
    for (uint32_t i = 0; i < config->namespace_count; i++) {
        const struct config_namespace *namespace = &config->namespaces[i];
        struct span own = span_str(namespace->prefix);
        bool may_match = span_has_prefix(begin, own) || (!prefix.is_all && span_has_prefix(own, begin));
        if (namespace->consistency == CONSISTENCY_STRONG && may_match) {
            return true;
        }
    }
    return false;
}
