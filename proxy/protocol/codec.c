#include "proxy/protocol/codec.h"

void codec_init(struct codec *codec)
{
    codec->is_decided = false;
    codec->is_binary = false;
    classic_init(&codec->classic);
    binary_init(&codec->binary);
}

enum parse_result codec_parse(struct codec *codec, const char *data, size_t len, size_t *consumed, struct request *out, struct span *error)
{
    if (unlikely(!codec->is_decided)) {
        *consumed = 0;
        if (len == 0) {
            return PARSE_MORE;
        }
        codec->is_decided = true;
        codec->is_binary = (uint8_t)data[0] == BINARY_REQUEST;
    }
    if (codec->is_binary) {
        return binary_parse(&codec->binary, data, len, consumed, out, error);
    }
    return classic_parse(&codec->classic, data, len, consumed, out, error);
}

enum err codec_render(struct codec *codec, const struct request *request, const struct reply *reply, struct chain *out)
{
    if (codec->is_binary) {
        return binary_render(request, reply, out);
    }
    return classic_render(&codec->classic, request, reply, out);
}

size_t codec_swallow(struct codec *codec)
{
    size_t swallow = codec->classic.swallow + codec->binary.swallow; /* only one of them is ever fed */
    codec->classic.swallow = 0;
    codec->binary.swallow = 0;
    return swallow;
}
