/* What:    an intrusive doubly linked list. A head and an element are the same struct.
 * Owns:    nothing; elements live in their owners.
 * Threads: one at a time.
 */
#ifndef COMMON_LIST_H
#define COMMON_LIST_H

#include "common/base.h"

struct list {
    struct list *next;
    struct list *prev;
};

static inline void list_init(struct list *l)
{
    l->next = l;
    l->prev = l;
}

static inline bool list_is_empty(const struct list *l)
{
    return l->next == l;
}

/* True while the element is on some list (after list_init or list_remove it is not). */
static inline bool list_is_linked(const struct list *l)
{
    return l->next != l;
}

static inline void list_push_back(struct list *head, struct list *e)
{
    e->prev = head->prev;
    e->next = head;
    head->prev->next = e;
    head->prev = e;
}

static inline void list_push_front(struct list *head, struct list *e)
{
    e->next = head->next;
    e->prev = head;
    head->next->prev = e;
    head->next = e;
}

static inline void list_remove(struct list *e)
{
    e->prev->next = e->next;
    e->next->prev = e->prev;
    list_init(e);
}

static inline struct list *list_first(struct list *head)
{
    return list_is_empty(head) ? NULL : head->next;
}

static inline struct list *list_pop_front(struct list *head)
{
    struct list *e = list_first(head);
    if (e != NULL) {
        list_remove(e);
    }
    return e;
}

#define list_entry(ptr, type, member) container_of(ptr, type, member)

/* `tmp` allows the body to remove the element at hand, and no other. */
#define list_for_each(it, tmp, head) for ((it) = (head)->next, (tmp) = (it)->next; (it) != (head); (it) = (tmp), (tmp) = (it)->next)

#endif
