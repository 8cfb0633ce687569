/* What:    a wide area network of a few namespaces, for tests: what they send each other takes its time, and can be cut off. (The kernels
 *          we test on have no netem.)
 * Owns:    the network namespaces, which go when this process and all in them have ended; their only interfaces are lo and wan0.
 * Threads: one.
 * Fails:   exits with 77 when it may not make namespaces or TUN devices, with 1 for anything else; says why on stderr.
 *
 *     wan COUNT
 *
 * Namespace i (0 …) has the address 10.99.0.(i + 1), and others enter it by /proc/PID/fd/N, which the first lines say: "namespace i N".
 * Then commands come on stdin, each answered with "ok" or "error …"; i and j in both directions, or with "-to" behind the verb from i to j only:
 *
 *     delay i j MS     one way
 *     cut i j          what is on its way, and what follows, is lost without a word
 *     heal i j
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define PLACES_MAX 8
#define PACKET_MAX 2048
#define ON_THE_WAY_MAX 8192 /* packets; what comes then is dropped, as by any router */
#define SKIP 77

struct packet {
    struct packet *next;
    uint64_t due_us;
    size_t len;
    char bytes[PACKET_MAX];
};

/* From one place to another; in order. */
struct path {
    struct packet *head;
    struct packet *tail;
    unsigned count;
    uint64_t delay_us;
    bool is_cut;
};

struct wan {
    int places;
    int tun[PLACES_MAX];
    struct path paths[PLACES_MAX][PLACES_MAX];
};

static void give_up(const char *what)
{
    int status = errno == EPERM || errno == EACCES || errno == ENOENT ? SKIP : 1;
    fprintf(stderr, "wan: %s: %s\n", what, strerror(errno));
    exit(status);
}

static uint64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* --- the namespaces --- */

static void set_flags_up(int fd, const char *name)
{
    struct ifreq request = {0};
    snprintf(request.ifr_name, sizeof request.ifr_name, "%s", name);
    if (ioctl(fd, SIOCGIFFLAGS, &request) != 0) {
        give_up(name);
    }
    request.ifr_flags |= IFF_UP;
    if (ioctl(fd, SIOCSIFFLAGS, &request) != 0) {
        give_up(name);
    }
}

static void set_address(int fd, int place)
{
    struct ifreq request = {.ifr_name = "wan0"};
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x0a630000U + (uint32_t)place + 1)};
    memcpy(&request.ifr_addr, &address, sizeof address);
    if (ioctl(fd, SIOCSIFADDR, &request) != 0) {
        give_up("an address for wan0");
    }
    address.sin_addr.s_addr = htonl(0xffffff00U);
    memcpy(&request.ifr_netmask, &address, sizeof address);
    if (ioctl(fd, SIOCSIFNETMASK, &request) != 0) {
        give_up("a netmask for wan0");
    }
}

static int make_place(int place)
{
    if (unshare(CLONE_NEWNET) != 0) {
        give_up("a network namespace");
    }
    int namespace = open("/proc/thread-self/ns/net", O_RDONLY);
    int tun = open("/dev/net/tun", O_RDWR | O_NONBLOCK);
    struct ifreq request = {.ifr_name = "wan0", .ifr_flags = IFF_TUN | IFF_NO_PI};
    if (namespace < 0 || tun < 0 || ioctl(tun, TUNSETIFF, &request) != 0) {
        give_up("/dev/net/tun");
    }
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (fd < 0) {
        give_up("a socket");
    }
    set_address(fd, place);
    set_flags_up(fd, "wan0");
    set_flags_up(fd, "lo");
    close(fd);
    printf("namespace %d %d\n", place, namespace);
    return tun;
}

/* --- packets --- */

static struct packet *pop(struct path *path)
{
    struct packet *packet = path->head;
    path->head = packet->next;
    path->count--;
    return packet;
}

static void receive(struct wan *wan, int from)
{
    for (;;) {
        struct packet *packet = malloc(sizeof *packet);
        ssize_t n = packet != NULL ? read(wan->tun[from], packet->bytes, sizeof packet->bytes) : -1;
        const uint8_t *ip = n > 0 ? (const uint8_t *)packet->bytes : NULL;
        if (n < 0) {
            free(packet);
            return;
        }
        int to = n >= 20 && ip[0] >> 4 == 4 && ip[16] == 10 && ip[17] == 99 && ip[18] == 0 ? ip[19] - 1 : -1;
        if (to < 0 || to >= wan->places || to == from || wan->paths[from][to].is_cut || wan->paths[from][to].count == ON_THE_WAY_MAX) {
            free(packet);
            continue;
        }
        struct path *path = &wan->paths[from][to];
        packet->next = NULL;
        packet->len = (size_t)n;
        packet->due_us = now_us() + path->delay_us;
        *(path->head == NULL ? &path->head : &path->tail->next) = packet;
        path->tail = packet;
        path->count++;
    }
}

/* Returns when to call again. */
static uint64_t deliver(struct wan *wan)
{
    uint64_t next_us = UINT64_MAX;
    for (int from = 0; from < wan->places; from++) {
        for (int to = 0; to < wan->places; to++) {
            struct path *path = &wan->paths[from][to];
            while (path->head != NULL && path->head->due_us <= now_us()) {
                struct packet *packet = pop(path);
                if (write(wan->tun[to], packet->bytes, packet->len) < 0 && errno != EAGAIN && errno != EIO) {
                    fprintf(stderr, "wan: a packet was not delivered: %s\n", strerror(errno));
                }
                free(packet);
            }
            next_us = path->head != NULL && path->head->due_us < next_us ? path->head->due_us : next_us;
        }
    }
    return next_us;
}

/* --- commands --- */

static const char *obey(struct wan *wan, const char *line)
{
    char verb[16];
    int i = 0;
    int j = 0;
    unsigned ms = 0;
    int n = sscanf(line, "%15s %d %d %u", verb, &i, &j, &ms);
    if (n < 3 || i < 0 || j < 0 || i >= wan->places || j >= wan->places || i == j) {
        return "error: which places?";
    }
    struct path *both[] = {&wan->paths[i][j], &wan->paths[j][i]};
    char *suffix = strstr(verb, "-to");
    if (suffix != NULL) {
        *suffix = '\0';
    }
    for (int k = 0; k < (suffix != NULL ? 1 : 2); k++) {
        if (strcmp(verb, "delay") == 0 && n == 4) {
            both[k]->delay_us = 1000ULL * ms;
        } else if (strcmp(verb, "cut") == 0) {
            both[k]->is_cut = true;
            while (both[k]->head != NULL) {
                free(pop(both[k]));
            }
        } else if (strcmp(verb, "heal") == 0) {
            both[k]->is_cut = false;
        } else {
            return "error: delay, cut or heal";
        }
    }
    return "ok";
}

/* False at the end of stdin. The other side sends one command at a time. */
static bool take_command(struct wan *wan)
{
    char line[64];
    ssize_t n = read(STDIN_FILENO, line, sizeof line - 1);
    if (n <= 0) {
        return false;
    }
    line[n] = '\0';
    puts(obey(wan, line));
    return true;
}

int main(int argc, char **argv)
{
    struct wan wan = {.places = argc == 2 ? atoi(argv[1]) : 0};
    struct pollfd fds[PLACES_MAX + 1] = {{.fd = STDIN_FILENO, .events = POLLIN}};
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (wan.places < 2 || wan.places > PLACES_MAX) {
        fprintf(stderr, "usage: wan COUNT (2 to %d)\n", PLACES_MAX);
        return 2;
    }
    for (int i = 0; i < wan.places; i++) {
        wan.tun[i] = make_place(i);
        fds[1 + i] = (struct pollfd){.fd = wan.tun[i], .events = POLLIN};
    }
    puts("ready");
    for (;;) {
        uint64_t next_us = deliver(&wan);
        uint64_t now = now_us();
        uint64_t wait_us = next_us == UINT64_MAX ? 1000000 : next_us > now ? next_us - now : 0;
        struct timespec wait = {.tv_sec = (time_t)(wait_us / 1000000), .tv_nsec = (long)(wait_us % 1000000) * 1000};
        if (ppoll(fds, (nfds_t)wan.places + 1, &wait, NULL) < 0 && errno != EINTR) {
            give_up("ppoll");
        }
        for (int i = 0; i < wan.places; i++) {
            receive(&wan, i);
        }
        if (fds[0].revents != 0 && !take_command(&wan)) {
            return 0;
        }
    }
}
