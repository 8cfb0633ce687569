/* What:    the addresses of the configuration: host:port, [v6]:port, unix:/path, and the servers of the bus.
 * Owns:    nothing; the strings of an address are the caller's, until config_address_free().
 * Threads: any.
 * Fails:   ERR_INVALID with the reason in `why`; the address is then empty.
 */
#ifndef COMMON_CONFIG_ADDRESS_H
#define COMMON_CONFIG_ADDRESS_H

#include "common/config.h"
#include "common/config_problems.h"

/* The port may be left out if there is a default (not 0). */
enum err config_address_parse(const char *text, uint16_t default_port, struct address *out, struct reason *why);
void config_address_free(struct address *address);

bool config_address_is_loopback(const struct address *address); /* nobody on another host can get there; "localhost" counts */
bool config_address_is_same(const struct address *a, const struct address *b);

/* nats://host:port or tls://host:port, or several of one kind with commas between them. */
enum err config_address_check_url(const char *text, struct reason *why);

#endif
