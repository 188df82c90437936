/* A load generator for RocketMQ's remoting protocol: one thread, epoll, nothing but libc.
 *
 *   loadgen send  HOST PORT --connections 32 --inflight 1 --size 128 --seconds 10 --warmup 2
 *                 --topic NAME --topics 1 --queues 8
 *                 --spin 1 polls instead of sleeping: for a generator with a core of its own
 *   loadgen fill  the same until --count messages are stored, round the queues
 *   loadgen echo  the same frames to a server that sends them back
 *   loadgen topics HOST PORT --count 10000 --topic PREFIX     one first message to each new topic
 *   loadgen pull  HOST PORT --topic NAME --queues 8           drains everything from offset 0
 *   loadgen client HOST PORT --topic NAME --queues 8 --count N  the same as a push consumer does: one
 *                 connection, a heartbeat, one pull in flight for each queue, until N messages came
 *   loadgen wake  HOST PORT --topic NAME --count 2000         a waiting pull, one message at a time
 *
 * Every answer must be a success; others are counted and make the run fail. The result is one line of
 * JSON on standard output: rates per second, times in microseconds.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define IN_BYTES (4 << 20)
#define LATENCIES_MAX (64u << 20)

struct connection {
    int fd;
    int waiting;                /* answers outstanding */
    char *in;                   /* bytes read and not yet a whole frame */
    size_t in_used;
    char *out;                  /* bytes to write */
    size_t out_used, out_size;
    uint64_t *sent_at;          /* by slot of the opaque */
    long queue;                 /* pull: its queue and next offset */
    long long offset;
    int done;
};

static const char *mode, *topic = "BenchmarkTest", *host;
static int port, connections = 32, inflight = 1, size = 128, queues = 8, topics = 1, spin;
static double seconds = 10, warmup = 2;
static long count = 10000;
static uint64_t begin_ns, measure_ns, end_ns;
static uint64_t answers, errors, bytes_in, messages_in;
static long long *next_offset;  /* client: by queue */
static uint32_t *latencies;
static size_t latency_count;
static char *body;
static unsigned long long sequence;
static char first_error[256];

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + t.tv_nsec;
}

static void die(const char *what) {
    perror(what);
    exit(2);
}

static void put(struct connection *c, const void *data, size_t n) {
    if (c->out_used + n > c->out_size) {
        while (c->out_used + n > c->out_size) c->out_size = c->out_size ? 2 * c->out_size : 65536;
        c->out = realloc(c->out, c->out_size);
        if (!c->out) die("realloc");
    }
    memcpy(c->out + c->out_used, data, n);
    c->out_used += n;
}

static void put_frame(struct connection *c, const char *header, size_t n, const char *data, size_t m) {
    uint32_t word[2] = {htonl(4 + n + m), htonl(n)};
    put(c, word, 8);
    put(c, header, n);
    if (m) put(c, data, m);
}

static void put_send(struct connection *c, uint32_t opaque, const char *name, int queue) {
    char header[1024];
    unsigned long long id = ++sequence;
    int n = snprintf(header, sizeof header,
        "{\"code\":310,\"extFields\":{\"a\":\"benchmark_producer\",\"b\":\"%s\",\"c\":\"TBW102\",\"d\":\"%d\","
        "\"e\":\"%d\",\"f\":\"0\",\"g\":\"%lld\",\"h\":\"0\","
        "\"i\":\"UNIQ_KEY\\u00017F0000010F2A18B4%016llX\\u0002WAIT\\u0001true\\u0002\",\"j\":\"0\",\"k\":\"false\","
        "\"l\":\"0\",\"m\":\"false\",\"n\":\"broker-a\"},\"flag\":0,\"language\":\"JAVA\",\"opaque\":%u,"
        "\"serializeTypeCurrentRPC\":\"JSON\",\"version\":479}",
        name, queues, queue, (long long)time(NULL) * 1000, id, opaque);
    put_frame(c, header, n, body, size);
}

static void put_pull(struct connection *c, uint32_t opaque, long queue, long long offset, int wait_ms) {
    char header[1024];
    int n = snprintf(header, sizeof header,
        "{\"code\":11,\"extFields\":{\"commitOffset\":\"0\",\"consumerGroup\":\"benchmark_consumer\","
        "\"expressionType\":\"TAG\",\"maxMsgNums\":\"32\",\"queueId\":\"%ld\",\"queueOffset\":\"%lld\","
        "\"subVersion\":\"0\",\"subscription\":\"*\",\"suspendTimeoutMillis\":\"%d\",\"sysFlag\":\"%d\","
        "\"topic\":\"%s\"},\"flag\":0,\"language\":\"JAVA\",\"opaque\":%u,\"version\":479}",
        queue, offset, wait_ms, wait_ms ? 6 : 4, topic, opaque);
    put_frame(c, header, n, NULL, 0);
}

/* What DefaultMQPushConsumer sends: the subscription is the heartbeat's, the offset is committed. */
static void put_client_pull(struct connection *c, long queue) {
    char header[1024];
    int n = snprintf(header, sizeof header,
        "{\"code\":11,\"extFields\":{\"commitOffset\":\"%lld\",\"consumerGroup\":\"benchmark_consumer\","
        "\"expressionType\":\"TAG\",\"maxMsgBytes\":\"2147483647\",\"maxMsgNums\":\"32\",\"queueId\":\"%ld\","
        "\"queueOffset\":\"%lld\",\"subVersion\":\"1\","
        "\"suspendTimeoutMillis\":\"15000\",\"sysFlag\":\"3\",\"topic\":\"%s\"},\"flag\":0,"
        "\"language\":\"JAVA\",\"opaque\":%ld,\"serializeTypeCurrentRPC\":\"JSON\",\"version\":479}",
        next_offset[queue], queue, next_offset[queue], topic, queue);
    put_frame(c, header, n, NULL, 0);
}

static void put_heartbeat(struct connection *c) {
    char data[1024], header[256];
    int m = snprintf(data, sizeof data,
        "{\"clientID\":\"127.0.0.1@loadgen\",\"consumerDataSet\":[{\"consumeFromWhere\":"
        "\"CONSUME_FROM_FIRST_OFFSET\",\"consumeType\":\"CONSUME_PASSIVELY\",\"groupName\":"
        "\"benchmark_consumer\",\"messageModel\":\"CLUSTERING\",\"subscriptionDataSet\":[{"
        "\"classFilterMode\":false,\"codeSet\":[],\"expressionType\":\"TAG\",\"subString\":\"*\","
        "\"subVersion\":1,\"tagsSet\":[],\"topic\":\"%s\"}],\"unitMode\":false}],"
        "\"producerDataSet\":[]}", topic);
    int n = snprintf(header, sizeof header,
        "{\"code\":34,\"flag\":0,\"language\":\"JAVA\",\"opaque\":%d,"
        "\"serializeTypeCurrentRPC\":\"JSON\",\"version\":479}", queues);
    put_frame(c, header, n, data, m);
}

static void flush_out(struct connection *c) {
    size_t at = 0;
    while (at < c->out_used) {
        ssize_t n = write(c->fd, c->out + at, c->out_used - at);
        if (n > 0) { at += n; continue; }
        if (n < 0 && errno == EAGAIN) {  /* the peer is slow; wait for it rather than spin */
            fd_set set;
            FD_ZERO(&set);
            FD_SET(c->fd, &set);
            select(c->fd + 1, NULL, &set, NULL, NULL);
            continue;
        }
        die("write");
    }
    c->out_used = 0;
}

static struct connection *connect_all(int n) {
    struct connection *all = calloc(n, sizeof *all);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    if (inet_pton(AF_INET, host, &address.sin_addr) != 1) {
        fprintf(stderr, "loadgen: %s is no IPv4 address\n", host);
        exit(2);
    }
    for (int i = 0; i < n; i++) {
        struct connection *c = &all[i];
        int one = 1;
        c->fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(c->fd, (struct sockaddr *)&address, sizeof address) < 0) die("connect");
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        fcntl(c->fd, F_SETFL, O_NONBLOCK);
        c->in = malloc(IN_BYTES);
        c->sent_at = calloc(inflight + 1, sizeof *c->sent_at);
        c->queue = i;
    }
    return all;
}

static long field(const char *header, size_t n, const char *name) {
    char key[64];
    size_t k = snprintf(key, sizeof key, "\"%s\":", name);
    const char *at = memmem(header, n, key, k);
    if (!at) return -1;
    at += k;
    if (*at == '"') at++;
    return strtol(at, NULL, 10);
}

static void note_error(const char *header, size_t n) {
    if (!errors++) {
        snprintf(first_error, sizeof first_error, "%.*s", (int)(n < 250 ? n : 250), header);
        for (char *p = first_error; *p; p++) if (*p == '"' || *p == '\\' || *p < 32) *p = ' ';
    }
}

static long records_in(const char *data, size_t n) {
    long found = 0;
    while (n >= 4) {
        uint32_t length = ntohl(*(const uint32_t *)data);
        if (length < 91 || length > n) break;
        found++;
        data += length;
        n -= length;
    }
    return found;
}

static void next_send(struct connection *c, uint32_t slot) {
    char name[256];
    unsigned long long n = sequence;
    if (topics > 1) snprintf(name, sizeof name, "%s-%llu", topic, n % topics);
    else snprintf(name, sizeof name, "%s", topic);
    c->sent_at[slot] = now_ns();
    put_send(c, slot, name, (int)(n / topics % queues));
    c->waiting++;
}

static void one_topic(struct connection *c, uint32_t slot) {
    char name[256];
    snprintf(name, sizeof name, "%s-%llu", topic, sequence);
    c->sent_at[slot] = now_ns();
    put_send(c, slot, name, 0);
    c->waiting++;
}

/* One whole frame has arrived. */
static void answered(struct connection *c, const char *header, size_t n, const char *data, size_t m) {
    uint64_t t = now_ns();
    long opaque = field(header, n, "opaque");
    long code = field(header, n, "code");
    bytes_in += n + m + 8;
    if (*mode != 'e' && !(field(header, n, "flag") & 1)) return;  /* a request of the server's, such as a notice */
    c->waiting--;
    if (!strcmp(mode, "pull")) {
        long long next = field(header, n, "nextBeginOffset");
        if (code == 0) {
            messages_in += records_in(data, m);
            c->offset = next;
            put_pull(c, 0, c->queue, next, 0);
            c->waiting++;
        } else if (code == 19) {
            c->queue += connections;
            c->offset = 0;
            if (c->queue < queues) { put_pull(c, 0, c->queue, 0, 0); c->waiting++; }
            else c->done = 1;
        } else {
            note_error(header, n);
            c->done = 1;
        }
        return;
    }
    if (!strcmp(mode, "client")) {
        if (code != 0 || opaque < 0 || opaque > queues) {
            note_error(header, n);
            c->done = 1;
        } else if (opaque == queues) {  /* the heartbeat */
            for (long q = 0; q < queues; q++) put_client_pull(c, q);
        } else {
            messages_in += records_in(data, m);
            next_offset[opaque] = field(header, n, "nextBeginOffset");
            if ((long)messages_in >= count) c->done = 1;
            else put_client_pull(c, opaque);
        }
        return;
    }
    if (opaque < 0 || opaque >= inflight) { note_error(header, n); return; }
    if (strcmp(mode, "echo") && code != 0) note_error(header, n);
    if (t >= measure_ns) {
        answers++;
        if (latency_count < LATENCIES_MAX) latencies[latency_count++] = (t - c->sent_at[opaque]) / 1000;
    }
    if (!strcmp(mode, "topics") || !strcmp(mode, "fill")) {
        if ((long)sequence < count) {
            if (*mode == 't') one_topic(c, opaque);
            else next_send(c, opaque);
        } else if (!c->waiting) c->done = 1;
    } else if (t < end_ns) next_send(c, opaque);
    else if (!c->waiting) c->done = 1;
}

static void take(struct connection *c) {
    for (;;) {
        ssize_t n = read(c->fd, c->in + c->in_used, IN_BYTES - c->in_used);
        if (n == 0) { fprintf(stderr, "loadgen: the server closed the connection\n"); exit(2); }
        if (n < 0) { if (errno == EAGAIN) break; die("read"); }
        c->in_used += n;
        size_t at = 0;
        while (c->in_used - at >= 8) {
            uint32_t length = ntohl(*(uint32_t *)(c->in + at));
            uint32_t head = ntohl(*(uint32_t *)(c->in + at + 4)) & 0xffffff;
            if (c->in_used - at < length + 4u) break;
            answered(c, c->in + at + 8, head, c->in + at + 8 + head, length - 4 - head);
            at += length + 4;
        }
        memmove(c->in, c->in + at, c->in_used - at);
        c->in_used -= at;
        if ((size_t)n < 65536) break;
    }
    if (c->out_used) flush_out(c);
}

/* With a core of its own it polls: to wake a sleeping generator costs the server's core with each write,
 * and is no part of what is measured. 0 after 10 s. */
static int wait_for(int epoll, struct epoll_event *events, int room) {
    if (!spin) return epoll_wait(epoll, events, room, 10000);
    for (uint64_t begin = now_ns(); now_ns() - begin < 10000000000u;) {
        int n = epoll_wait(epoll, events, room, 0);
        if (n) return n;
    }
    return 0;
}

static void run(struct connection *all) {
    int epoll = epoll_create1(0), left = connections;
    struct epoll_event events[256];
    for (int i = 0; i < connections; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &all[i]};
        epoll_ctl(epoll, EPOLL_CTL_ADD, all[i].fd, &event);
    }
    while (left > 0) {
        int n = wait_for(epoll, events, 256);
        if (n == 0) { fprintf(stderr, "loadgen: no answer for 10 s\n"); exit(2); }
        for (int i = 0; i < n; i++) {
            struct connection *c = events[i].data.ptr;
            int before = c->done;
            take(c);
            if (c->done && !before) left--;
        }
    }
}

static int by_value(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static void report(double elapsed, double done, const char *what) {
    qsort(latencies, latency_count, sizeof *latencies, by_value);
    double p50 = latency_count ? latencies[latency_count / 2] : 0;
    double p99 = latency_count ? latencies[(size_t)(latency_count * 0.99)] : 0;
    double worst = latency_count ? latencies[latency_count - 1] : 0;
    printf("{\"mode\":\"%s\",\"%s\":%.0f,\"seconds\":%.3f,\"rate\":%.1f,\"p50\":%.0f,\"p99\":%.0f,"
           "\"max\":%.0f,\"bytes_per_second\":%.0f,\"errors\":%llu,\"first_error\":\"%s\"}\n",
           mode, what, done, elapsed, done / elapsed, p50, p99, worst, bytes_in / elapsed,
           (unsigned long long)errors, first_error);
}

static void run_send(void) {
    struct connection *all = connect_all(connections);
    begin_ns = now_ns();
    measure_ns = begin_ns + (uint64_t)(warmup * 1e9);
    end_ns = measure_ns + (uint64_t)(seconds * 1e9);
    for (int i = 0; i < connections; i++) {
        for (int k = 0; k < inflight; k++) next_send(&all[i], k);
        flush_out(&all[i]);
    }
    run(all);
    report((now_ns() - measure_ns) / 1e9, answers, "answers");
}

static void run_counted(void) {
    if (count < (long)connections * inflight) { connections = 1; inflight = 1; }
    struct connection *all = connect_all(connections);
    measure_ns = begin_ns = now_ns();
    for (int i = 0; i < connections; i++) {
        for (int k = 0; k < inflight; k++) {
            if (*mode == 't') one_topic(&all[i], k);
            else next_send(&all[i], k);
        }
        flush_out(&all[i]);
    }
    run(all);
    report((now_ns() - begin_ns) / 1e9, answers, *mode == 't' ? "topics" : "messages");
}

static void run_pull(void) {
    if (connections > queues) connections = queues;
    struct connection *all = connect_all(connections);
    begin_ns = now_ns();
    for (int i = 0; i < connections; i++) {
        put_pull(&all[i], 0, all[i].queue, 0, 0);
        all[i].waiting = 1;
        flush_out(&all[i]);
    }
    run(all);
    report((now_ns() - begin_ns) / 1e9, messages_in, "messages");
}

static void run_client(void) {
    connections = 1;
    next_offset = calloc(queues, sizeof *next_offset);
    struct connection *all = connect_all(1);
    begin_ns = now_ns();
    put_heartbeat(all);
    flush_out(all);
    run(all);
    report((now_ns() - begin_ns) / 1e9, messages_in, "messages");
}

static void read_frame(struct connection *c, char *header, size_t limit) {
    for (;;) {
        if (c->in_used >= 8) {
            uint32_t length = ntohl(*(uint32_t *)c->in);
            if (c->in_used >= length + 4u) {
                uint32_t head = ntohl(*(uint32_t *)(c->in + 4)) & 0xffffff;
                if (head >= limit) head = limit - 1;
                memcpy(header, c->in + 8, head);
                header[head] = 0;
                memmove(c->in, c->in + length + 4, c->in_used - length - 4);
                c->in_used -= length + 4;
                return;
            }
        }
        ssize_t n = read(c->fd, c->in + c->in_used, IN_BYTES - c->in_used);
        if (n > 0) c->in_used += n;
        else if (n == 0) { fprintf(stderr, "loadgen: the server closed the connection\n"); exit(2); }
        else if (errno != EAGAIN) die("read");
        else {
            fd_set set;
            FD_ZERO(&set);
            FD_SET(c->fd, &set);
            select(c->fd + 1, &set, NULL, NULL, NULL);
        }
    }
}

static void run_wake(void) {
    char header[4096];
    inflight = 1;
    struct connection *all = connect_all(2), *consumer = &all[0], *producer = &all[1];
    put_send(producer, 0, topic, 0);
    flush_out(producer);
    read_frame(producer, header, sizeof header);
    long long offset = field(header, strlen(header), "queueOffset") + 1;
    if (offset <= 0) note_error(header, strlen(header));
    usleep(200000);  /* RocketMQ answers a send before its queue has it: the offset would be refused */
    begin_ns = now_ns();
    for (long i = 0; i < count && !errors; i++) {
        put_pull(consumer, 0, 0, offset, 15000);
        flush_out(consumer);
        usleep(500);  /* let it be parked */
        uint64_t t = now_ns();
        put_send(producer, 0, topic, 0);
        flush_out(producer);
        read_frame(consumer, header, sizeof header);
        latencies[latency_count++] = (now_ns() - t) / 1000;
        if (field(header, strlen(header), "code") != 0) note_error(header, strlen(header));
        offset = field(header, strlen(header), "nextBeginOffset");
        read_frame(producer, header, sizeof header);
        if (field(header, strlen(header), "code") != 0) note_error(header, strlen(header));
    }
    report((now_ns() - begin_ns) / 1e9, latency_count, "messages");
}

int main(int argc, char **argv) {
    if (argc < 4) { fprintf(stderr, "usage: see the top of loadgen.c\n"); return 2; }
    mode = argv[1];
    host = argv[2];
    port = atoi(argv[3]);
    for (int i = 4; i + 1 < argc; i += 2) {
        const char *name = argv[i], *value = argv[i + 1];
        if (!strcmp(name, "--connections")) connections = atoi(value);
        else if (!strcmp(name, "--inflight")) inflight = atoi(value);
        else if (!strcmp(name, "--spin")) spin = atoi(value);
        else if (!strcmp(name, "--size")) size = atoi(value);
        else if (!strcmp(name, "--seconds")) seconds = atof(value);
        else if (!strcmp(name, "--warmup")) warmup = atof(value);
        else if (!strcmp(name, "--topic")) topic = value;
        else if (!strcmp(name, "--topics")) topics = atoi(value);
        else if (!strcmp(name, "--queues")) queues = atoi(value);
        else if (!strcmp(name, "--count")) count = atol(value);
        else { fprintf(stderr, "loadgen: unknown option %s\n", name); return 2; }
    }
    body = malloc(size + 1);
    memset(body, 'x', size);
    latencies = malloc(sizeof *latencies * (size_t)LATENCIES_MAX);
    if (!strcmp(mode, "send") || !strcmp(mode, "echo")) run_send();
    else if (!strcmp(mode, "topics")) { inflight = 1; run_counted(); }
    else if (!strcmp(mode, "fill")) run_counted();
    else if (!strcmp(mode, "pull")) { inflight = 1; run_pull(); }
    else if (!strcmp(mode, "client")) run_client();
    else if (!strcmp(mode, "wake")) run_wake();
    else { fprintf(stderr, "loadgen: unknown mode %s\n", mode); return 2; }
    return errors ? 1 : 0;
}
