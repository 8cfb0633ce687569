#include "common/config_problems.h"

#include <stdarg.h>

#define TEXT_MAX 1024 /* of one problem; more is cut */
#define QUOTED_MAX 64 /* bytes of a value that are shown; escaped, each may take four characters */

void config_problems_init(struct config_problems *problems, const char *file)
{
    *problems = (struct config_problems){.file = file};
}

void config_problems_deinit(struct config_problems *problems)
{
    for (uint32_t i = 0; i < problems->count; i++) {
        free(problems->list[i].text);
    }
    free(problems->list);
    *problems = (struct config_problems){.file = problems->file};
}

void config_problems_add(struct config_problems *problems, uint32_t line, const char *fmt, ...)
{
    if (problems->count == CONFIG_PROBLEMS_MAX) {
        problems->left_out++;
        return;
    }
    if (problems->count == problems->cap) {
        uint32_t cap = MAX(16U, problems->cap * 2);
        struct config_problem *list = xcalloc(cap, sizeof *list);
        if (problems->count > 0) {
            memcpy(list, problems->list, problems->count * sizeof *list);
        }
        free(problems->list);
        problems->list = list;
        problems->cap = cap;
    }
    char text[TEXT_MAX];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    problems->list[problems->count] = (struct config_problem){line, problems->count, xstrdup(text)};
    problems->count++;
}

static int compare(const void *a, const void *b)
{
    const struct config_problem *x = a;
    const struct config_problem *y = b;
    if (x->line != y->line) {
        return x->line < y->line ? -1 : 1;
    }
    return x->order < y->order ? -1 : 1;
}

void config_problems_print(struct config_problems *problems, FILE *out)
{
    if (problems->count > 1) {
        qsort(problems->list, problems->count, sizeof *problems->list, compare);
    }
    for (uint32_t i = 0; i < problems->count; i++) {
        const struct config_problem *p = &problems->list[i];
        if (p->line > 0) {
            fprintf(out, "%s:%u: %s\n", problems->file, p->line, p->text);
        } else {
            fprintf(out, "%s: %s\n", problems->file, p->text);
        }
    }
    if (problems->left_out > 0) {
        fprintf(out, "%s: and %u more problems\n", problems->file, problems->left_out);
    }
}

enum err config_problems_reason(struct reason *why, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(why->text, sizeof why->text, fmt, args);
    va_end(args);
    return ERR_INVALID;
}

const char *config_problems_quote(struct span raw, char out[CONFIG_QUOTED_SIZE])
{
    static const char hex[] = "0123456789abcdef";
    char *o = out;
    *o++ = '"';
    for (size_t i = 0; i < raw.len && i < QUOTED_MAX; i++) {
        unsigned char c = (unsigned char)raw.data[i];
        if (c == '"' || c == '\\') {
            *o++ = '\\';
            *o++ = (char)c;
        } else if (c >= 0x20 && c < 0x7f) {
            *o++ = (char)c;
        } else {
            *o++ = '\\';
            *o++ = 'x';
            *o++ = hex[c >> 4];
            *o++ = hex[c & 15];
        }
    }
    if (raw.len > QUOTED_MAX) {
        memcpy(o, "...", 3);
        o += 3;
    }
    *o++ = '"';
    *o = '\0';
    return out;
}
