#include "proxy/pool/slots.h"

#include "tests/unit/check_main.h"

static struct node_call *call(uintptr_t n)
{
    return (struct node_call *)n;
}

START_TEST(keeps_order_while_it_grows_and_wraps)
{
    struct slots slots;
    slots_init(&slots, 1000);
    uintptr_t in = 1;
    uintptr_t out = 1;
    for (int round = 0; round < 50; round++) {
        for (int i = 0; i < 37; i++) {
            slots_push(&slots, call(in), in);
            in++;
        }
        for (int i = 0; i < 31; i++) {
            struct slot slot = slots_pop(&slots);
            ck_assert_ptr_eq(slot.call, call(out));
            ck_assert_uint_eq(slot.sent_us, out);
            out++;
        }
    }
    while (slots.count > 0) {
        ck_assert_ptr_eq(slots_pop(&slots).call, call(out));
        out++;
    }
    ck_assert_uint_eq(in, out);
    slots_deinit(&slots);
}
END_TEST

START_TEST(has_room_up_to_its_limit)
{
    struct slots slots;
    slots_init(&slots, 70);
    for (uintptr_t i = 1; i <= 70; i++) {
        ck_assert(slots_have_room(&slots));
        slots_push(&slots, call(i), 0);
    }
    ck_assert(!slots_have_room(&slots));
    slots_pop(&slots);
    ck_assert(slots_have_room(&slots));
    slots_deinit(&slots);
}
END_TEST

START_TEST(counts_the_expired_among_the_oldest)
{
    struct slots slots;
    slots_init(&slots, 70);
    slots_push(&slots, call(1), 0);
    slots_push(&slots, call(2), 0);
    slots_at(&slots, 0)->call = NULL;
    slots.expired = 1;
    ck_assert_ptr_null(slots_pop(&slots).call);
    ck_assert_uint_eq(slots.expired, 0);
    ck_assert_ptr_eq(slots_pop(&slots).call, call(2));
    ck_assert_uint_eq(slots.expired, 0);
    slots_deinit(&slots);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("slots");
    TCase *tc = tcase_create("fifo");
    tcase_add_test(tc, keeps_order_while_it_grows_and_wraps);
    tcase_add_test(tc, has_room_up_to_its_limit);
    tcase_add_test(tc, counts_the_expired_among_the_oldest);
    suite_add_tcase(suite, tc);
    return check_main(suite);
}
