/* What:    sees to it that the own region's stream INVAL_<region> exists and has the configured settings.
 * Owns:    struct keeper is the bus's; it borrows transport and log.
 * Threads: the bus's thread.
 * Fails:   never for good: it tries again, and keeper_problem() says what is in the way.
 *
 * It looks again every KEEPER_CHECK: settings that somebody changes are put right, and the ring hears whether the stream still has what it had
 * acknowledged. Settings that drop events and can not be changed are a problem that is reported; what is published may still get through.
 *
 *   down ──on_up──▶ asked ──"not found"──▶ creating ──┐
 *    ▲                │ └──settings differ──▶ updating ┤
 *    └──on_down── any └──────── as it should be ───────┴──▶ kept      waiting ──retry──▶ asked
 *                     a refusal or silence, from any of these: ──▶ waiting
 */
#ifndef PROXY_BUS_KEEPER_H
#define PROXY_BUS_KEEPER_H

#include "common/log.h"
#include "proxy/bus/backoff.h"
#include "proxy/bus/jetstream.h"
#include "proxy/bus/ring.h"
#include "proxy/bus/settings.h"

#define KEEPER_CHECK_US 15000000ULL

enum keeper_state { KEEPER_DOWN, KEEPER_ASKED, KEEPER_CREATING, KEEPER_UPDATING, KEEPER_WAITING, KEEPER_KEPT };

struct keeper {
    struct transport *transport;
    struct log *log;
    const char *region;
    const struct config_bus *config;
    char stream[NAME_MAX_LEN];
    enum keeper_state state;
    uint64_t request; /* number of the request under way; answers to others are late */
    uint64_t due_us;  /* of the next step: an answer is given up, or the next try */
    struct backoff backoff;
    bool is_kept;              /* it was as it should be when it was last looked at */
    char drops[SETTINGS_TEXT]; /* by which settings the stream that is being updated drops events; "": none */
    char problem[512];         /* "" while there is none */
    struct ring *ring;         /* or NULL: is told what the stream has */
};

void keeper_init(struct keeper *keeper, const struct config *config, struct transport *transport, struct log *log, uint64_t seed);

void keeper_on_up(struct keeper *keeper, uint64_t now_us);
void keeper_on_down(struct keeper *keeper);
/* A publication found no stream: look again. */
void keeper_check(struct keeper *keeper, uint64_t now_us);
/* An answer to "<inbox>.k.<request>". */
void keeper_on_answer(struct keeper *keeper, uint64_t request, const struct incoming *message, uint64_t now_us);
/* Does what is due; returns when to call again (UINT64_MAX: not before something happens). */
uint64_t keeper_step(struct keeper *keeper, uint64_t now_us);

/* NULL while the stream is kept, else what is the matter. */
const char *keeper_problem(const struct keeper *keeper);

#endif
