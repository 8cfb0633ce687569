#include "proxy/protocol/codec.h"

void codec_init(struct codec *codec)
{
    codec->is_decided = false;
    codec->is_binary = false;
    classic_init(&codec->classic);
}

enum parse_result codec_parse(struct codec *codec, const char *data, size_t len, size_t *consumed, struct request *out, struct span *error)
{
    return classic_parse(&codec->classic, data, len, consumed, out, error);
}

enum err codec_render(struct codec *codec, const struct request *request, const struct reply *reply, struct chain *out)
{
    return classic_render(&codec->classic, request, reply, out);
}

size_t codec_swallow(struct codec *codec)
{
    size_t swallow = codec->classic.swallow;
    codec->classic.swallow = 0;
    return swallow;
}
