#include "common/config_yaml.h"

struct scan {
    struct span text;
    struct config_problems *problems;
    uint32_t documents;
    uint32_t nodes;
    uint32_t depth;
    bool failed; /* a problem was found */
    bool over;   /* nothing more to look at */
};

static uint32_t line_of(yaml_mark_t mark)
{
    return (uint32_t)mark.line + 1;
}

static void refuse(struct scan *scan, yaml_mark_t mark, const char *text)
{
    config_problems_add(scan->problems, line_of(mark), "%s", text);
    scan->failed = true;
}

/* The reader, which looks at single bytes, knows offsets only. */
static uint32_t line_of_problem(const struct scan *scan, const yaml_parser_t *parser)
{
    if (parser->error != YAML_READER_ERROR) {
        return line_of(parser->problem_mark);
    }
    uint32_t line = 1;
    for (size_t i = 0; i < scan->text.len && i < parser->problem_offset; i++) {
        line += scan->text.data[i] == '\n';
    }
    return line;
}

static void refuse_syntax(struct scan *scan, const yaml_parser_t *parser)
{
    const char *problem = parser->problem != NULL ? parser->problem : "out of memory";
    uint32_t line = line_of_problem(scan, parser);
    if (parser->context != NULL) {
        config_problems_add(scan->problems, line, "is not YAML: %s (%s)", problem, parser->context);
    } else {
        config_problems_add(scan->problems, line, "is not YAML: %s", problem);
    }
    scan->failed = true;
    scan->over = true;
}

static void look_at_node(struct scan *scan, yaml_mark_t mark, const yaml_char_t *anchor, const yaml_char_t *tag)
{
    if (anchor != NULL) {
        refuse(scan, mark, "anchors (&name) are not supported");
    }
    if (tag != NULL) {
        refuse(scan, mark, "tags (!name) are not supported");
    }
    if (++scan->nodes > CONFIG_NODES_MAX) {
        refuse(scan, mark, "the file has more than 65536 values");
        scan->over = true;
    }
}

static void go_deeper(struct scan *scan, yaml_mark_t mark)
{
    if (++scan->depth > CONFIG_DEPTH_MAX) {
        refuse(scan, mark, "is nested more than 16 levels deep");
        scan->over = true;
    }
}

static void look_at(struct scan *scan, const yaml_event_t *event)
{
    yaml_mark_t mark = event->start_mark;
    switch (event->type) {
    case YAML_DOCUMENT_START_EVENT:
        if (++scan->documents > 1) {
            refuse(scan, mark, "a second document begins here; expected one");
            scan->over = true;
        }
        break;
    case YAML_ALIAS_EVENT: refuse(scan, mark, "aliases (*name) are not supported"); break;
    case YAML_SCALAR_EVENT: look_at_node(scan, mark, event->data.scalar.anchor, event->data.scalar.tag); break;
    case YAML_SEQUENCE_START_EVENT:
        look_at_node(scan, mark, event->data.sequence_start.anchor, event->data.sequence_start.tag);
        go_deeper(scan, mark);
        break;
    case YAML_MAPPING_START_EVENT:
        look_at_node(scan, mark, event->data.mapping_start.anchor, event->data.mapping_start.tag);
        go_deeper(scan, mark);
        break;
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT: scan->depth--; break;
    case YAML_STREAM_END_EVENT: scan->over = true; break;
    default: break;
    }
}

static void start(yaml_parser_t *parser, struct span text)
{
    if (!yaml_parser_initialize(parser)) {
        fputs("out of memory\n", stderr);
        abort();
    }
    yaml_parser_set_encoding(parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(parser, (const unsigned char *)text.data, text.len);
}

enum err config_yaml_load(struct span text, struct config_problems *problems, yaml_document_t *out)
{
    struct scan scan = {.text = text, .problems = problems};
    yaml_parser_t parser;
    if (text.len > CONFIG_TEXT_MAX) {
        config_problems_add(problems, 0, "is larger than 1 MiB");
        return ERR_CONFIG;
    }
    start(&parser, text);
    while (!scan.over) {
        yaml_event_t event;
        if (yaml_parser_parse(&parser, &event)) {
            look_at(&scan, &event);
            yaml_event_delete(&event);
        } else {
            refuse_syntax(&scan, &parser);
        }
    }
    yaml_parser_delete(&parser);
    if (scan.failed) {
        return ERR_CONFIG;
    }
    start(&parser, text);
    if (!yaml_parser_load(&parser, out)) {
        refuse_syntax(&scan, &parser);
    }
    yaml_parser_delete(&parser);
    return scan.failed ? ERR_CONFIG : OK;
}

bool config_yaml_is_null(const yaml_node_t *node)
{
    static const char *const nulls[] = {"", "~", "null", "Null", "NULL"};
    if (node->type != YAML_SCALAR_NODE || node->data.scalar.style != YAML_PLAIN_SCALAR_STYLE) {
        return false;
    }
    for (size_t i = 0; i < ARRAY_LEN(nulls); i++) {
        if (span_eq(config_yaml_scalar(node), span_str(nulls[i]))) {
            return true;
        }
    }
    return false;
}

const char *config_yaml_kind(const yaml_node_t *node)
{
    switch (node->type) {
    case YAML_SCALAR_NODE: return config_yaml_is_null(node) ? "nothing" : "a single value";
    case YAML_SEQUENCE_NODE: return "a list";
    case YAML_MAPPING_NODE: return "a mapping";
    default: return "nothing";
    }
}
