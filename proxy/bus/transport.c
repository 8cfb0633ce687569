#include "proxy/bus/transport.h"

bool transport_parse_inbox(const struct transport *transport, const char *subject, char *kind, uint64_t *number)
{
    size_t len = strlen(transport->inbox);
    if (strncmp(subject, transport->inbox, len) != 0 || subject[len] != '.' || subject[len + 1] == '\0' || subject[len + 2] != '.') {
        return false;
    }
    *kind = subject[len + 1];
    *number = strtoull(subject + len + 3, NULL, 10);
    return true;
}
