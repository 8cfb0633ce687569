/* What:    who may use the cache: the users and passwords of a file like memcached's (-Y), and whether a pair is among them.
 * Owns:    struct credentials owns the table in force; a table that is replaced goes when the last comparison with it is over.
 * Threads: credentials_match() from any thread; the rest from one.
 * Fails:   ERR_INVALID with "FILE:LINE: what is wrong"; what was in force before stays in force.
 *
 * The file: one "user:password" a line. As with memcached there are no comments, the user ends at the first ':', and a user may be listed
 * more than once, with any of the passwords. Other than with memcached nothing is cut off or passed over: a line that is empty, without ':',
 * without user or password, or too long is refused.
 */
#ifndef COMMON_CREDENTIALS_H
#define COMMON_CREDENTIALS_H

#include "common/config_problems.h"

#define CREDENTIALS_MAX 1024         /* users */
#define CREDENTIALS_LINE_MAX 255     /* bytes of a line */

struct credentials;

enum err credentials_open(const char *path, struct credentials **out, struct reason *why);
void credentials_close(struct credentials **credentials); /* no thread compares any more */

/* Reads the file again. */
enum err credentials_reload(struct credentials *credentials, struct reason *why);
/* Whether the file is another than the one that was last read or tried. */
bool credentials_is_outdated(const struct credentials *credentials);

/* Whether everybody on this host may read the file: worth a warning. */
bool credentials_is_exposed(const struct credentials *credentials);
uint32_t credentials_count(const struct credentials *credentials);
const char *credentials_path(const struct credentials *credentials);

/* Takes the same time whichever user is asked for and however much of a password is right. */
bool credentials_match(struct credentials *credentials, struct span user, struct span password);

#endif
