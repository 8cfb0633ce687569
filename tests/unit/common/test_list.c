#include <check.h>

#include "common/list.h"
#include "tests/unit/check_main.h"

struct item {
    int value;
    struct list link;
};

static void expect(struct list *head, const char *expected)
{
    char found[32];
    size_t n = 0;
    struct list *it, *tmp;
    list_for_each (it, tmp, head) {
        ck_assert_ptr_eq(it->next->prev, it);
        ck_assert_ptr_eq(it->prev->next, it);
        found[n++] = (char)('0' + list_entry(it, struct item, link)->value);
    }
    found[n] = '\0';
    ck_assert_str_eq(found, expected);
    ck_assert(list_is_empty(head) == (n == 0));
}

START_TEST(empty)
{
    struct list head;
    list_init(&head);
    ck_assert(list_is_empty(&head));
    ck_assert(!list_is_linked(&head));
    ck_assert_ptr_null(list_first(&head));
    ck_assert_ptr_null(list_pop_front(&head));
    expect(&head, "");
    list_remove(&head); /* of what is on no list: nothing */
    ck_assert(list_is_empty(&head));
}
END_TEST

START_TEST(push_and_pop)
{
    struct list head;
    struct item items[4] = {{.value = 1}, {.value = 2}, {.value = 3}, {.value = 4}};
    list_init(&head);
    list_push_back(&head, &items[1].link);
    list_push_back(&head, &items[2].link);
    list_push_front(&head, &items[0].link);
    list_push_back(&head, &items[3].link);
    expect(&head, "1234");
    ck_assert_ptr_eq(list_first(&head), &items[0].link);
    ck_assert_ptr_eq(list_pop_front(&head), &items[0].link);
    ck_assert(!list_is_linked(&items[0].link));
    ck_assert(list_is_linked(&items[1].link));
    expect(&head, "234");
    list_push_back(&head, &items[0].link); /* may be put on again */
    expect(&head, "2341");
}
END_TEST

START_TEST(remove_anywhere)
{
    static const char *const expected[] = {"23", "13", "12"};
    for (int i = 0; i < 3; i++) {
        struct list head;
        struct item items[3] = {{.value = 1}, {.value = 2}, {.value = 3}};
        list_init(&head);
        for (int k = 0; k < 3; k++) {
            list_push_back(&head, &items[k].link);
        }
        list_remove(&items[i].link);
        ck_assert(!list_is_linked(&items[i].link));
        expect(&head, expected[i]);
        list_remove(&items[i].link); /* twice: nothing */
        expect(&head, expected[i]);
    }
}
END_TEST

/* The body may remove the element at hand, and put it on another list. */
START_TEST(remove_while_walking)
{
    struct list head, other, *it, *tmp;
    struct item items[9];
    list_init(&head);
    list_init(&other);
    for (int i = 0; i < 9; i++) {
        items[i].value = i;
        list_push_back(&head, &items[i].link);
    }
    list_for_each (it, tmp, &head) {
        if (list_entry(it, struct item, link)->value % 3 != 1) {
            list_remove(it);
            list_push_front(&other, it);
        }
    }
    expect(&head, "147");
    expect(&other, "865320");
    list_for_each (it, tmp, &head) {
        list_remove(it);
    }
    expect(&head, "");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("list");
    TCase *all = tcase_create("all");
    tcase_add_test(all, empty);
    tcase_add_test(all, push_and_pop);
    tcase_add_test(all, remove_anywhere);
    tcase_add_test(all, remove_while_walking);
    suite_add_tcase(suite, all);
    return check_main(suite);
}
