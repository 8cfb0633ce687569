#include "proxy/bus/bus.h"

#include "proxy/bus/bus_parts.h"

/* What any thread may ask: how the bus is doing. */

bool bus_is_spool_ready(struct bus *bus, char *text, size_t size)
{
    return spooler_status(bus->spooler, text, size);
}

bool bus_is_ready(struct bus *bus, char *text, size_t size)
{
    bool is_ready = true;
    size_t used = 0;
    if (size > 0) {
        text[0] = '\0';
    }
    pthread_mutex_lock(&bus->status_lock);
    for (uint32_t i = 0; i < bus->region_count; i++) {
        const char *problem = bus->regions[i].text;
        if (problem[0] == '\0') {
            continue;
        }
        int n = used < size ? snprintf(text + used, size - used, "%s%s", is_ready ? "" : ", ", problem) : 0;
        used += n > 0 ? (size_t)n : 0;
        is_ready = false;
    }
    pthread_mutex_unlock(&bus->status_lock);
    return is_ready;
}

void bus_region_status(struct bus *bus, uint32_t index, struct bus_region_status *out)
{
    struct bus_region *r = &bus->regions[index];
    pthread_mutex_lock(&bus->status_lock);
    snprintf(out->problem, sizeof out->problem, "%s", r->text);
    pthread_mutex_unlock(&bus->status_lock);
    out->is_peer = index > 0;
    out->heard_us = atomic_load_explicit(&r->consumer.told_heard_us, memory_order_relaxed);
    out->lag_ms = atomic_load_explicit(&r->consumer.told_lag_ms, memory_order_relaxed);
    out->backlog = atomic_load_explicit(&r->consumer.told_backlog, memory_order_relaxed);
}
