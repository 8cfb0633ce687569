#include "ctl/print.h"

#define COLUMNS_MAX 24
#define CELL_MAX 512

void print_text(FILE *out, struct span text)
{
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.data[i];
        if (c < ' ' || c == 0x7f) {
            fprintf(out, "\\x%02x", c);
        } else {
            fputc(c, out);
        }
    }
}

/* A value in one cell. */
static void write_cell(FILE *out, const json_t *value)
{
    if (value == NULL || json_is_null(value)) {
        fputc('-', out);
    } else if (json_is_string(value)) {
        print_text(out, span_of(json_string_value(value), json_string_length(value)));
    } else if (json_is_boolean(value)) {
        fputs(json_is_true(value) ? "yes" : "no", out);
    } else if (json_is_real(value)) {
        fprintf(out, "%g", json_real_value(value));
    } else {
        json_dumpf(value, out, JSON_COMPACT | JSON_ENCODE_ANY);
    }
}

static void print_members(FILE *out, const json_t *object, const char *skip, const char *prefix)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)object, name, value) /* the macro's cast; nothing is changed */
    {
        if (skip != NULL && strcmp(name, skip) == 0) {
            continue;
        }
        char path[128];
        snprintf(path, sizeof path, "%s%s%s", prefix, prefix[0] != '\0' ? "." : "", name);
        if (json_is_object(value) && json_object_size(value) > 0 && prefix[0] == '\0') {
            print_members(out, value, NULL, path);
            continue;
        }
        fprintf(out, "%-24s ", path);
        write_cell(out, value);
        fputc('\n', out);
    }
}

void print_object(FILE *out, const json_t *object, const char *skip)
{
    print_members(out, object, skip, "");
}

static char *cell_text(const json_t *value)
{
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    if (out == NULL) {
        return xstrdup("");
    }
    write_cell(out, value);
    fclose(out);
    if (len > CELL_MAX) {
        memcpy(text + CELL_MAX - 3, "...", 4);
    }
    return text;
}

static uint32_t columns_of(const json_t *array, const char *const *columns, const char **out)
{
    uint32_t count = 0;
    const char *name;
    json_t *value;
    json_t *first = json_array_get(array, 0);
    while (columns != NULL && count < COLUMNS_MAX && columns[count] != NULL) {
        out[count] = columns[count];
        count++;
    }
    if (columns == NULL) {
        json_object_foreach(first, name, value)
        {
            if (count < COLUMNS_MAX) {
                out[count++] = name;
            }
        }
    }
    return count;
}

static void print_padded(const char *text, size_t width, bool is_last, FILE *out)
{
    if (is_last) {
        fprintf(out, "%s\n", text);
    } else {
        fprintf(out, "%-*s  ", (int)width, text);
    }
}

void print_table(FILE *out, const json_t *array, const char *const *columns)
{
    const char *names[COLUMNS_MAX];
    size_t widths[COLUMNS_MAX];
    uint32_t count = columns_of(array, columns, names);
    size_t rows = json_array_size(array);
    char **cells = xcalloc(rows * count + 1, sizeof *cells);
    for (uint32_t c = 0; c < count; c++) {
        widths[c] = strlen(names[c]);
        for (size_t r = 0; r < rows; r++) {
            char *text = cell_text(json_object_get(json_array_get(array, r), names[c]));
            cells[r * count + c] = text;
            widths[c] = MAX(widths[c], strlen(text));
        }
    }
    for (uint32_t c = 0; c < count; c++) {
        print_padded(names[c], widths[c], c + 1 == count, out);
    }
    for (size_t i = 0; i < rows * count; i++) {
        print_padded(cells[i], widths[i % count], i % count + 1 == count, out);
        free(cells[i]);
    }
    free(cells);
}
