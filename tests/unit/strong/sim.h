/* What:    a world for the strong lease, with a clock of its own: voters that may be away or lose their data, sidecars that may stand still, and a network
 *          between them that delays, repeats and loses. All that happens follows from a seed.
 * Owns:    struct sim, until sim_destroy().
 *
 * Sidecars 0 to 2 are of the region west, and may hold its lease; all of them may suspend it. A connection is as one over TCP: what was sent over one that is broken
 * is not answered, and does not reach a voter that was restarted.
 */
#ifndef TESTS_UNIT_STRONG_SIM_H
#define TESTS_UNIT_STRONG_SIM_H

#include <unistd.h>

#include "common/guard.h"
#include "proxy/strong/holder.h"
#include "proxy/strong/suspension.h"
#include "tests/unit/bus/fake_bucket.h"

#define LEASE S
#define WINDOW (2 * S)
#define VOTERS 5
#define SIDECARS 5
#define HOLDERS 3
#define NUMBERS 1024
#define TEXT 320

enum kind { REQUEST, ANSWER, UP, DOWN, RECONNECT, RULE_DONE, ELECT };

struct event {
    struct event *next;
    uint64_t at_us;
    uint64_t order;
    enum kind kind;
    uint32_t sidecar;
    uint32_t voter; /* as the sidecar counts them */
    uint32_t epoch; /* of the connection */
    uint32_t incarnation; /* of the voter */
    uint64_t number;
    int status;
    bool flag;
    int64_t expected;
    char subject[96];
    char text[TEXT];
};

struct line { /* one sidecar's connection to one voter */
    struct transport transport;
    struct sim *sim;
    uint32_t sidecar;
    uint32_t voter;
    uint32_t place; /* in sim.voters */
    uint32_t epoch;
    bool is_up;
    uint64_t cut_until_us; /* what is sent vanishes, both ways */
};

struct sidecar {
    struct sim *sim;
    uint32_t index;
    struct line lines[VOTERS];
    struct vote votes[VOTERS];
    struct voters voters;
    struct holder holder;
    struct suspension suspension;
    struct suspension_waiter waiter;
    enum err waited; /* how the last one ended */
    uint64_t paused_until_us;
    uint64_t due_us;
    uint64_t comeback_us; /* when it last had a majority for a number to come back with */
    enum strong_mode mode; /* as of the last change */
    uint64_t taken_over_us; /* the last that the holder said */
    bool was_ready; /* with the lease that it has still: others may serve on the strength of it */
};

struct voter {
    struct bucket bucket;
    bool is_up;
    uint64_t up_us;
    uint32_t incarnation;
    bool is_behind; /* it has lost its data, and has not been told the highest number since */
};

struct sim {
    uint64_t seed;
    uint64_t random;
    uint64_t now_us;
    uint64_t order;
    bool is_quiet;
    bool is_traced;
    bool is_pool_whole;
    uint32_t voter_count;
    struct voter voters[VOTERS];
    struct sidecar sidecars[SIDECARS];
    struct event *events; /* by time */
    struct log *log;

    uint64_t rule_us[NUMBERS]; /* when the rule for this number was last applied */
    uint64_t fence_us;         /* until when a write that has left the region out may land */
    char violation[200];

    uint32_t readies, comebacks, takeovers, proofs, losses; /* so that it is seen to do something */
};

struct sim *sim_create(uint64_t seed, uint32_t voters, uint32_t broken_guard);
void sim_destroy(struct sim *sim);
uint64_t sim_random(struct sim *sim, uint64_t below);
void sim_push(struct sim *sim, struct event *event, uint64_t in_us);
/* Starts the sidecar, or starts it anew: what it knew is gone. */
void sim_start(struct sim *sim, uint32_t sidecar);
void sim_break_line(struct sim *sim, struct line *line);
void sim_break_voter(struct sim *sim, uint32_t place, uint64_t for_us, bool loses);
/* Whether one more voter may lose its data: never a majority, one soon after the other. */
bool sim_may_lose(struct sim *sim, uint32_t place);
void sim_elect(struct sim *sim, uint32_t sidecar, bool is_elected, uint64_t in_us);
/* The next thing that happens, at most until then; after it the promises are looked at. False: nothing more until then. */
bool sim_turn(struct sim *sim, uint64_t until_us);
void sim_trace(struct sim *sim, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
