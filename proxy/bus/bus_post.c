#include "proxy/bus/bus.h"

#include "common/clock.h"
#include "proxy/bus/bus_parts.h"
#include "proxy/bus/spool_record.h"

/* What any thread hands to the bus: publications and records, by its mailbox, and what goes to the spool. */

static void deliver_publication(struct mail *mail, void *owner)
{
    struct bus *bus = owner;
    publisher_submit(&bus->publisher, container_of(mail, struct publication, mail));
}

static void deliver_record(struct mail *mail, void *owner)
{
    struct bus *bus = owner;
    rulebook_submit(&bus->rulebook, container_of(mail, struct record, mail));
}

void bus_publish(struct bus *bus, struct publication *publication)
{
    publication->submitted_us = clock_mono_us();
    publication->kind = SPOOL_OWED; /* if it comes to that */
    publication->debts = DEBT_BUS;
    publication->mail.deliver = deliver_publication;
    if (!gate_post(&bus->gate, &bus->mailbox, &publication->mail)) {
        publication_finish(publication, ERR_STOPPING);
    }
}

bool bus_has_spool(const struct bus *bus)
{
    return bus->spooler != NULL;
}

static void spool(struct bus *bus, struct publication *publication, uint8_t kind, uint8_t debts)
{
    publication->submitted_us = clock_mono_us();
    publication->kind = kind;
    publication->debts = debts;
    publication->sender = publication->count = 0;
    publication->reserved = NULL;
    if (!gate_enter(&bus->gate)) {
        publication_finish(publication, ERR_STOPPING);
        return;
    }
    if (invalidation_is_valid(&publication->event)) {
        spooler_take(bus->spooler, publication);
    } else {
        publication_finish(publication, ERR_INVALID);
    }
    gate_leave(&bus->gate);
}

void bus_owe(struct bus *bus, struct publication *publication, bool is_published)
{
    spool(bus, publication, SPOOL_OWED, is_published ? DEBTS : DEBT_NODE);
}

bool bus_owes(struct bus *bus, struct span key)
{
    return bus->spooler != NULL && spooler_owes(bus->spooler, key);
}

bool bus_has_intent(const struct bus *bus)
{
    return bus->spooler != NULL && bus->config->bus->intent;
}

void bus_reserve(struct bus *bus, struct publication *publication)
{
    if (bus_has_intent(bus)) {
        spool(bus, publication, SPOOL_RESERVED, 0);
        return;
    }
    publication->reserved = NULL;
    publication_finish(publication, OK);
}

void bus_commit(struct bus *bus, struct publication *publication)
{
    if (publication->reserved != NULL && gate_is_closed(&bus->gate)) {
        publication_finish(publication, OK); /* the next start finds the reservation */
        return;
    }
    bus_publish(bus, publication);
}

void bus_cancel(struct bus *bus, struct publication *publication)
{
    if (publication->reserved != NULL && !gate_is_closed(&bus->gate)) { /* else the next start finds it, and invalidates too much */
        spooler_clear(bus->spooler, publication);
    }
}

static void deliver_confirmation(struct mail *mail, void *owner)
{
    struct bus *bus = owner;
    confirm_submit(&bus->confirm, container_of(mail, struct confirmation, mail));
}

void bus_confirm(struct bus *bus, struct confirmation *confirmation)
{
    if (!confirmation->has_position) {
        confirmation->position = (struct position){
            .sidecar = bus->publisher.id, .spooled = bus->spooler != NULL ? spooler_mark(bus->spooler) : 0};
    }
    confirmation->mail.deliver = deliver_confirmation;
    if (!gate_post(&bus->gate, &bus->mailbox, &confirmation->mail)) {
        confirmation_finish(confirmation, ERR_STOPPING);
    }
}

bool bus_is_sweeper(struct bus *bus)
{
    return clock_mono_us() < atomic_load(&bus->sweeper_until_us);
}

void bus_record(struct bus *bus, struct record *record)
{
    record->submitted_us = clock_mono_us();
    record->mail.deliver = deliver_record;
    if (!gate_post(&bus->gate, &bus->mailbox, &record->mail)) {
        record_finish(record, ERR_STOPPING);
    }
}
