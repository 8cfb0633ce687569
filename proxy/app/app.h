/* What:    builds the sidecar upward, floor by floor, waits for a signal, and tears it down in the opposite order.
 * Owns:    everything in the process, in one struct app; there is no other state.
 * Threads: the main thread.
 *
 *   log, metrics ▶ namespaces, ring, tls ▶ workers (loops) ▶ loader ▶ bus ▶ workers start ▶ admin ▶ signal
 *   ▶ admin ends ▶ workers drain and stop ▶ bus, loader end ▶ workers destroyed ▶ bus destroyed ▶ the rest
 */
#ifndef PROXY_APP_APP_H
#define PROXY_APP_APP_H

#include "common/config.h"

/* Runs until SIGTERM or SIGINT; at SIGHUP, and when they have changed, the TLS files are read again. Fails, with the reason logged, when an address can not be listened on. */
enum err app_run(const struct config *config);

#endif
