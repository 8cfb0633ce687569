/* What:    text to a libyaml document, once it is known to be harmless: bounded in size, depth and number of nodes, without anchors,
 *          aliases and tags (nothing here needs them, and aliases make small files large).
 * Owns:    nothing; the document is the caller's, to be given back with yaml_document_delete().
 * Threads: any.
 * Fails:   ERR_CONFIG with the problems added.
 */
#ifndef COMMON_CONFIG_YAML_H
#define COMMON_CONFIG_YAML_H

#include <yaml.h>

#include "common/config_problems.h"
#include "common/err.h"

#define CONFIG_TEXT_MAX (1U << 20)
#define CONFIG_DEPTH_MAX 16
#define CONFIG_NODES_MAX 65536

/* *out has no root node if the text has nothing but comments in it. */
enum err config_yaml_load(struct span text, struct config_problems *problems, yaml_document_t *out);

static inline uint32_t config_yaml_line(const yaml_node_t *node)
{
    return (uint32_t)node->start_mark.line + 1;
}

static inline struct span config_yaml_scalar(const yaml_node_t *node)
{
    return span_of((const char *)node->data.scalar.value, node->data.scalar.length);
}

/* Whether a key has nothing behind it, or YAML's null. */
bool config_yaml_is_null(const yaml_node_t *node);

const char *config_yaml_kind(const yaml_node_t *node); /* "a list" */

#endif
