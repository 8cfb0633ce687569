#include "proxy/strong/strong.h"

/* Until there is a controller (strong.c): nothing is confirmed. To be removed with it. */

static void deliver(struct mail *mail, void *owner)
{
    struct strong_confirmation *confirmation = container_of(mail, struct strong_confirmation, mail);
    confirmation->on_done(confirmation);
}

__attribute__((weak)) void strong_confirm(struct strong *strong, struct strong_confirmation *confirmation)
{
    confirmation->err = ERR_UNSUPPORTED;
    confirmation->text[0] = '\0';
    confirmation->mail.deliver = deliver;
    mailbox_post(confirmation->reply_to, &confirmation->mail);
}
