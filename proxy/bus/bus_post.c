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

/* After bus_stop() nobody drains the mailboxes, so a publication must not get into one: either we see is_stopping, or bus_stop()
 * sees that we are posting and waits. */
static bool begin_posting(struct bus *bus)
{
    atomic_fetch_add(&bus->posting, 1);
    if (!atomic_load(&bus->is_stopping)) {
        return true;
    }
    atomic_fetch_sub(&bus->posting, 1);
    return false;
}

static void end_posting(struct bus *bus)
{
    atomic_fetch_sub(&bus->posting, 1);
}

void bus_publish(struct bus *bus, struct publication *publication)
{
    publication->submitted_us = clock_mono_us();
    publication->kind = SPOOL_OWED; /* if it comes to that */
    publication->debts = DEBT_BUS;
    if (!begin_posting(bus)) {
        publication_finish(publication, ERR_STOPPING);
        return;
    }
    publication->mail.deliver = deliver_publication;
    mailbox_post(&bus->mailbox, &publication->mail);
    end_posting(bus);
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
    if (!begin_posting(bus)) {
        publication_finish(publication, ERR_STOPPING);
        return;
    }
    if (invalidation_is_valid(&publication->event)) {
        spooler_take(bus->spooler, publication);
    } else {
        publication_finish(publication, ERR_INVALID);
    }
    end_posting(bus);
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
    if (publication->reserved != NULL && atomic_load(&bus->is_stopping)) {
        publication_finish(publication, OK); /* the next start finds the reservation */
        return;
    }
    bus_publish(bus, publication);
}

void bus_cancel(struct bus *bus, struct publication *publication)
{
    if (publication->reserved != NULL && !atomic_load(&bus->is_stopping)) { /* else the next start finds it, and invalidates too much */
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
    if (!begin_posting(bus)) {
        confirmation_finish(confirmation, ERR_STOPPING);
        return;
    }
    confirmation->mail.deliver = deliver_confirmation;
    mailbox_post(&bus->mailbox, &confirmation->mail);
    end_posting(bus);
}

bool bus_is_sweeper(struct bus *bus)
{
    return clock_mono_us() < atomic_load(&bus->sweeper_until_us);
}

void bus_record(struct bus *bus, struct record *record)
{
    record->submitted_us = clock_mono_us();
    record->mail.deliver = deliver_record;
    if (!begin_posting(bus)) {
        record_finish(record, ERR_STOPPING);
        return;
    }
    mailbox_post(&bus->mailbox, &record->mail);
    end_posting(bus);
}
