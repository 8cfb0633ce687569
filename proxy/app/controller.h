/* What:    brings the consistency controller (proxy/strong) and the rest of the sidecar together: what it asks for goes to a worker or to the rules.
 * Owns:    nothing; the struct is the app's, and must outlive the controller.
 * Threads: start on the main thread; the rest is called on the controller's.
 */
#ifndef PROXY_APP_CONTROLLER_H
#define PROXY_APP_CONTROLLER_H

#include "proxy/app/worker.h"
#include "proxy/cache/rules.h"
#include "proxy/strong/strong.h"

struct controller {
    const struct config *config;
    struct log *log;
    struct metrics *metrics;
    struct worker **workers;
    uint32_t worker_count;
    struct rules *rules;
    struct strong *strong; /* NULL: no namespace is strong */
};

/* One key, one worker. */
struct worker *controller_worker(struct worker **workers, uint32_t count, struct span key);

/* After the workers and the rules are created, and before any of them starts. Nothing where no namespace is strong. */
enum err controller_start(struct controller *controller, const struct ketama *ring);

#endif
