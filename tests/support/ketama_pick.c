/* What:    the ring as a filter: nodes as arguments (host:port:weight, or /path:0:weight), keys on standard input, one a line; writes
 *          the index of the node of each.
 * Threads: one.
 * Fails:   exit code 2 with a message.
 */
#include "common/base.h"
#include "common/ketama.h"

/* host:port:weight; the last two colons count. */
static bool parse_node(char *text, struct ketama_node *node)
{
    char *weight = strrchr(text, ':');
    if (weight == NULL) {
        return false;
    }
    *weight++ = '\0';
    char *port = strrchr(text, ':');
    if (port == NULL) {
        return false;
    }
    *port++ = '\0';
    *node = (struct ketama_node){text, (uint16_t)strtoul(port, NULL, 10), (uint32_t)strtoul(weight, NULL, 10)};
    return true;
}

int main(int argc, char **argv)
{
    struct ketama_node *nodes = xcalloc((size_t)argc, sizeof *nodes);
    struct ketama *ring = NULL;
    char *line = NULL;
    size_t size = 0;
    ssize_t len;
    int code = 2;
    for (int i = 1; i < argc; i++) {
        if (!parse_node(argv[i], &nodes[i - 1])) {
            fprintf(stderr, "%s: expected host:port:weight\n", argv[i]);
            goto out;
        }
    }
    enum err err = ketama_create(nodes, (uint32_t)argc - 1, &ring);
    if (err != OK) {
        fprintf(stderr, "no ring: %s\n", err_text(err));
        goto out;
    }
    while ((len = getline(&line, &size, stdin)) > 0) {
        len -= line[len - 1] == '\n' ? 1 : 0;
        printf("%u\n", ketama_pick(ring, span_of(line, (size_t)len)));
    }
    code = 0;
out:
    free(line);
    ketama_destroy(&ring);
    free(nodes);
    return code;
}
