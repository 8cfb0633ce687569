#include "proxy/protocol/request.h"

const char *const command_words[COMMAND_COUNT] = {
#define X(name, word, op, shape, with) [COMMAND_##name] = word,
#include "proxy/protocol/commands.def"
#undef X
};
