#include "common/err.h"

#include "common/base.h"

static const char *const texts[] = {
#define X(name, label, text) text,
#include "common/err.def"
#undef X
};

static const char *const labels[] = {
#define X(name, label, text) label,
#include "common/err.def"
#undef X
};

const char *err_text(enum err err)
{
    return (size_t)err < ARRAY_LEN(texts) ? texts[err] : "unknown error";
}

const char *err_label(enum err err)
{
    return (size_t)err < ARRAY_LEN(labels) ? labels[err] : "unknown";
}
