#include <inttypes.h>

#include "common/clock.h"
#include "proxy/front/stats.h"
#include "proxy/net/peer.h"

/*   stats_conns_start ─▶ mailbox of worker 0 ─▶ … ─▶ of the last one ─▶ of the one that was asked ─▶ operation_done
 *
 * Each worker appends its own clients' lines, so nobody looks at another's sessions. What does not fit TEXT_MAX is counted. */

#define TEXT_MAX (1UL << 20)
#define LINES_OF_ONE_MAX 1024 /* bytes */

struct visit {
    struct mail mail;
    struct front *home;
    struct operation *op;
    uint32_t at; /* whose turn it is; behind the last: home */
    FILE *out;
    size_t text_len; /* known when `out` has been closed */
    size_t len;      /* so far */
    size_t len_max;
    uint64_t left_out;
};

static void append(void *ctx, const struct session_info *info)
{
    struct visit *visit = ctx;
    if (visit->len + LINES_OF_ONE_MAX > visit->len_max) {
        visit->left_out++;
        return;
    }
    char address[PEER_TEXT_SIZE];
    int len = stats_line(visit->out, "%d:addr %s", info->fd, peer_text(info->fd, address));
    len += stats_line(visit->out, "%d:listen_addr %s", info->fd, peer_local_text(info->fd, address));
    len += stats_line(visit->out, "%d:state %s", info->fd, info->state);
    len += stats_line(visit->out, "%d:secs_since_last_cmd %" PRIu64, info->fd, info->idle_us / 1000000);
    len += stats_line(visit->out, "%d:protocol %s", info->fd, info->protocol);
    len += stats_line(visit->out, "%d:worker %u", info->fd, visit->at);
    visit->len += len > 0 ? (size_t)len : 0;
}

static void come_home(struct visit *visit)
{
    struct operation *op = visit->op;
    if (visit->left_out > 0) {
        stats_line(visit->out, "left_out %" PRIu64, visit->left_out);
    }
    fclose(visit->out); /* op->text and text_len are complete now */
    size_t len = visit->text_len;
    free(visit);
    op->reply.text = span_of(op->text, len);
    operation_done(op, REPLY_STATS);
}

static void send_on(struct visit *visit)
{
    struct front *next = visit->at < visit->home->front_count ? visit->home->fronts[visit->at] : visit->home;
    mailbox_post(&next->loop->mailbox, &visit->mail);
}

static void on_visit(struct mail *mail, void *owner)
{
    struct visit *visit = container_of(mail, struct visit, mail);
    if (visit->at == visit->home->front_count) {
        come_home(visit);
        return;
    }
    front_list(visit->home->fronts[visit->at], append, visit);
    visit->at++;
    send_on(visit);
}

void stats_conns_start(struct front *front, struct operation *op)
{
    struct visit *visit = xcalloc(1, sizeof *visit);
    visit->mail.deliver = on_visit;
    visit->home = front;
    visit->op = op;
    visit->len_max = MIN(TEXT_MAX, front->config->max_client_buffer / 4);
    visit->out = open_memstream(&op->text, &visit->text_len);
    if (visit->out == NULL) {
        free(visit);
        operation_fail(op, "out of memory writing stats");
        return;
    }
    op->is_exclusive = true;
    send_on(visit);
}
