/* A load generator for RocketMQ's gRPC protocol: one thread, epoll, nothing but libc.
 *
 *   grpcload send    HOST PORT --connections 8 --inflight 8 --size 128 --seconds 10 --warmup 2
 *                    --topic NAME          SendMessage, one message a call; the topic must exist
 *                    --spin 1 polls instead of sleeping: for a generator with a core of its own
 *   grpcload consume the same: each of connections x inflight workers receives up to --batch messages,
 *                    acknowledges each in a call of its own as SDKs do, and receives again
 *   grpcload drain   ReceiveMessage only: counts the messages that come, acknowledges none
 *
 * Every call must be answered with OK (a receive also with MESSAGE_NOT_FOUND); others are counted and
 * make the run fail. The result is one line of JSON on standard output: rates per second, times in
 * microseconds. "rate" is calls a second, of `drain` and `consume` messages a second.
 *
 * As the official SDKs do, a call carries what identifies the client as indexed header fields, and its
 * request id and deadline as literals.
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
#define STREAMS 65536           /* of a connection, that may lie between the oldest and the newest */
#define WINDOW 0x7fffffff
#define OK 20000
#define MESSAGE_NOT_FOUND 40401
#define TELEMETRY_STREAM 1

enum { DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE };
enum { END_STREAM = 1, ACK = 1, END_HEADERS = 4 };
enum { PATH_TELEMETRY, PATH_SEND, PATH_RECEIVE, PATH_ACK, NAMED };

struct bytes { char *data; size_t used, size; };

struct worker {                 /* one call at a time */
    uint32_t stream;
    int path;
    uint64_t sent_at;
    struct bytes in;            /* the answer so far */
    struct bytes entries;       /* consume: AckMessageEntry values to send, each behind its u32 length */
    size_t next_entry;
};

struct connection {
    int fd, number, ready, running;
    struct bytes in, out;
    int indexed[32], insertions;  /* our header fields in the peer's dynamic table */
    uint32_t next_stream, credit;
    int16_t *worker_of;
    struct worker *workers;
};

static const char *mode, *topic = "GrpcBenchmark", *group = "benchmark_consumer", *host;
static int port, connections = 8, inflight = 8, size = 128, batch = 32, spin;
static double seconds = 10, warmup = 2;
static uint64_t measure_ns, end_ns, last_message_ns;
static uint64_t answers, errors, bytes_in, messages_in, empty_receives;
static uint32_t *latencies;
static size_t latency_count;
static unsigned long long sequence;
static int left;
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

static void fail(const char *what) {
    fprintf(stderr, "grpcload: %s\n", what);
    exit(2);
}

static void put(struct bytes *b, const void *data, size_t n) {
    if (b->used + n > b->size) {
        while (b->used + n > b->size) b->size = b->size ? 2 * b->size : 4096;
        b->data = realloc(b->data, b->size);
        if (!b->data) die("realloc");
    }
    if (n) memcpy(b->data + b->used, data, n);
    b->used += n;
}

/* -- protobuf */

static void put_varint(struct bytes *b, uint64_t value) {
    char text[10];
    int n = 0;
    do { text[n++] = (value & 0x7f) | (value > 0x7f ? 0x80 : 0); value >>= 7; } while (value);
    put(b, text, n);
}

static void put_number(struct bytes *b, int field, uint64_t value) {
    put_varint(b, field << 3);
    put_varint(b, value);
}

static void put_part(struct bytes *b, int field, const void *data, size_t n) {
    put_varint(b, field << 3 | 2);
    put_varint(b, n);
    put(b, data, n);
}

static void put_text(struct bytes *b, int field, const char *text) { put_part(b, field, text, strlen(text)); }

static void put_resource(struct bytes *b, int field, const char *name) {
    struct bytes inner = {0};
    put_text(&inner, 2, name);
    put_part(b, field, inner.data, inner.used);
    free(inner.data);
}

static void put_seconds(struct bytes *b, int field, uint64_t value) {
    struct bytes inner = {0};
    put_number(&inner, 1, value);
    put_part(b, field, inner.data, inner.used);
    free(inner.data);
}

struct field { int number; uint64_t value; const unsigned char *data; };  /* value: or the length of data */

static int next_field(const unsigned char **at, const unsigned char *end, struct field *f) {
    uint64_t words[2];
    if (*at >= end) return 0;
    for (int i = 0; i < 2; i++) {
        words[i] = 0;
        for (int shift = 0;; shift += 7) {
            if (*at >= end || shift > 63) return 0;
            words[i] |= (uint64_t)(**at & 0x7f) << shift;
            if (!(*(*at)++ & 0x80)) break;
        }
        if (!i && (words[0] & 7) != 0 && (words[0] & 7) != 2) return 0;
    }
    f->number = words[0] >> 3;
    f->value = words[1];
    f->data = *at;
    if ((words[0] & 7) == 2) {
        if (words[1] > (uint64_t)(end - *at)) return 0;
        *at += words[1];
    }
    return 1;
}

static int find_field(const unsigned char *at, size_t n, int number, struct field *f) {
    const unsigned char *end = at + n;
    while (next_field(&at, end, f)) if (f->number == number) return 1;
    return 0;
}

/* -- requests */

static void put_settings(struct bytes *b) {
    struct bytes settings = {0}, inner = {0}, entry = {0};
    if (!strcmp(mode, "send")) {
        put_number(&settings, 1, 1);    /* PRODUCER */
        put_resource(&inner, 1, topic);
        put_part(&settings, 5, inner.data, inner.used);
    } else {
        put_number(&settings, 1, 3);    /* SIMPLE_CONSUMER */
        put_resource(&inner, 1, group);
        put_resource(&entry, 1, topic);
        put_part(&entry, 2, "\x08\x01\x12\x01*", 5);
        put_part(&inner, 2, entry.data, entry.used);
        put_part(&settings, 6, inner.data, inner.used);
    }
    put_seconds(&settings, 4, 3);
    put_part(b, 2, settings.data, settings.used);
    free(settings.data), free(inner.data), free(entry.data);
}

/* The parts that never change are made once. */
static struct bytes send_head, send_body, receive_request, ack_head;

static void make_requests(void) {
    char *body = malloc(size + 1);
    struct bytes inner = {0};
    memset(body, 'x', size);
    put_resource(&send_head, 1, topic);
    put_part(&send_body, 4, body, size);
    free(body);
    put_resource(&receive_request, 1, group);
    put_resource(&inner, 1, topic);
    put_number(&inner, 2, (uint64_t)-1);
    put_number(&inner, 3, 3);
    put_part(&receive_request, 2, inner.data, inner.used);
    put_part(&receive_request, 3, "\x08\x01\x12\x01*", 5);
    put_number(&receive_request, 4, batch);
    put_seconds(&receive_request, 5, 600);
    put_seconds(&receive_request, 7, 5);
    put_resource(&ack_head, 1, group);
    put_resource(&ack_head, 2, topic);
    free(inner.data);
}

static void put_send(struct bytes *b) {
    static struct bytes system, message;
    char id[40];
    snprintf(id, sizeof id, "01A1B2C3D4E5F60718%016llX", ++sequence);
    system.used = message.used = 0;
    put_text(&system, 3, id);
    put_part(&system, 4, "\x08\x01\x12\x08" "2A5D3C1B", 12);
    put_number(&system, 5, 1);
    put_number(&system, 6, 1);
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    struct bytes *when = &message;
    put_number(when, 1, t.tv_sec);
    put_number(when, 2, t.tv_nsec);
    put_part(&system, 7, when->data, when->used);
    put_text(&system, 8, "benchmark-host");
    message.used = 0;
    put(&message, send_head.data, send_head.used);
    put_part(&message, 3, system.data, system.used);
    put(&message, send_body.data, send_body.used);
    put_part(b, 1, message.data, message.used);
}

/* -- HTTP/2 */

static void put_head(struct bytes *b, uint32_t length, int kind, int flags, uint32_t stream) {
    unsigned char head[9] = {length >> 16, length >> 8, length, kind, flags,
                             stream >> 24, stream >> 16, stream >> 8, stream};
    put(b, head, 9);
}

static void put_literal(struct bytes *b, const char *text) {
    unsigned char n = strlen(text);  /* all of ours are shorter than 127 */
    put(b, &n, 1);
    put(b, text, n);
}

/* A field that comes again: a literal that is indexed, then its index. ``name``: or a static index. */
static void put_indexed(struct connection *c, struct bytes *b, int which, int name_index, const char *name,
                        const char *value) {
    unsigned char byte;
    if (c->indexed[which]) {
        byte = 0x80 | (62 + c->insertions - c->indexed[which]);
        put(b, &byte, 1);
        return;
    }
    c->indexed[which] = ++c->insertions;
    byte = 0x40 | name_index;
    put(b, &byte, 1);
    if (!name_index) put_literal(b, name);
    put_literal(b, value);
}

static void put_unindexed(struct bytes *b, const char *name, const char *value) {
    put(b, "", 1);
    put_literal(b, name);
    put_literal(b, value);
}

static const char *paths[] = {"Telemetry", "SendMessage", "ReceiveMessage", "AckMessage"};

static void put_headers(struct connection *c, int path, uint32_t stream) {
    static struct bytes b;
    char text[128];
    b.used = 0;
    put(&b, "\x83\x86", 2);  /* :method POST, :scheme http */
    snprintf(text, sizeof text, "/apache.rocketmq.v2.MessagingService/%s", paths[path]);
    put_indexed(c, &b, path, 4, NULL, text);
    put_indexed(c, &b, NAMED, 1, NULL, "127.0.0.1");
    put_indexed(c, &b, NAMED + 1, 31, NULL, "application/grpc");
    put_indexed(c, &b, NAMED + 2, 0, "te", "trailers");
    put_indexed(c, &b, NAMED + 3, 58, NULL, "grpc-java-netty/1.53.0");
    snprintf(text, sizeof text, "benchmark@%d@%d@%s", (int)getpid(), c->number, mode);
    put_indexed(c, &b, NAMED + 4, 0, "x-mq-client-id", text);
    put_indexed(c, &b, NAMED + 5, 0, "x-mq-language", "JAVA");
    put_indexed(c, &b, NAMED + 6, 0, "x-mq-protocol", "v2");
    put_indexed(c, &b, NAMED + 7, 0, "x-mq-client-version", "5.2.0");
    put_indexed(c, &b, NAMED + 8, 0, "x-mq-date-time", "20261125T024436Z");
    put_indexed(c, &b, NAMED + 9, 0, "grpc-accept-encoding", "gzip");
    snprintf(text, sizeof text, "%08llx-7c1b-4e0f-9d5a-1f2e3d4c5b6a", ++sequence & 0xffffffff);
    put_unindexed(&b, "x-mq-request-id", text);
    if (path != PATH_TELEMETRY) {
        snprintf(text, sizeof text, "%llum", (path == PATH_RECEIVE ? 9000ull : 3000ull) - sequence % 100);
        put_unindexed(&b, "grpc-timeout", text);
    }
    put_head(&c->out, b.used, HEADERS, END_HEADERS, stream);
    put(&c->out, b.data, b.used);
}

static void put_message(struct connection *c, uint32_t stream, int flags, const struct bytes *message) {
    uint32_t prefix = htonl(message->used);
    size_t n = message->used + 5;
    if (n > 16384) fail("a request is larger than one frame: choose a smaller --size");
    put_head(&c->out, n, DATA, flags, stream);
    put(&c->out, "", 1);
    put(&c->out, &prefix, 4);
    put(&c->out, message->data, message->used);
}

static void start_call(struct connection *c, int number, int path) {
    static struct bytes request;
    struct worker *w = &c->workers[number];
    request.used = 0;
    w->in.used = 0;
    w->path = path;
    w->stream = c->next_stream;
    c->next_stream += 2;
    c->worker_of[w->stream / 2 % STREAMS] = number;
    if (path == PATH_SEND) put_send(&request);
    else if (path == PATH_RECEIVE) put(&request, receive_request.data, receive_request.used);
    else {
        uint32_t n;
        memcpy(&n, w->entries.data + w->next_entry, 4);
        put(&request, ack_head.data, ack_head.used);
        put_part(&request, 3, w->entries.data + w->next_entry + 4, n);
        w->next_entry += 4 + n;
    }
    put_headers(c, path, w->stream);
    put_message(c, w->stream, END_STREAM, &request);
    w->sent_at = now_ns();
}

static void start_work(struct connection *c, int number) {
    struct worker *w = &c->workers[number];
    if (!strcmp(mode, "send")) start_call(c, number, PATH_SEND);
    else if (w->next_entry < w->entries.used) start_call(c, number, PATH_ACK);
    else {
        w->entries.used = w->next_entry = 0;
        start_call(c, number, PATH_RECEIVE);
    }
}

/* -- answers */

static void note_error(const char *what, long code) {
    if (!errors++) snprintf(first_error, sizeof first_error, "%s: code %ld", what, code);
}

static long status_code(const struct field *status) {
    struct field f;
    return find_field(status->data, status->value, 1, &f) ? (long)f.value : 0;
}

static void take_message(struct worker *w, const struct field *message) {
    struct field system, id, handle;
    struct bytes entry = {0};
    if (now_ns() >= measure_ns) messages_in++;
    if (strcmp(mode, "consume")) return;
    if (!find_field(message->data, message->value, 3, &system) ||
        !find_field(system.data, system.value, 3, &id) ||
        !find_field(system.data, system.value, 12, &handle)) {
        note_error("a message without id or receipt", 0);
        return;
    }
    put_part(&entry, 1, id.data, id.value);
    put_part(&entry, 2, handle.data, handle.value);
    uint32_t n = entry.used;
    put(&w->entries, &n, 4);
    put(&w->entries, entry.data, n);
    free(entry.data);
}

static void check_answer(struct worker *w) {
    const unsigned char *at = (unsigned char *)w->in.data, *end = at + w->in.used;
    int seen = 0;
    uint64_t before = messages_in;
    while (end - at >= 5) {
        size_t n = (size_t)at[1] << 24 | at[2] << 16 | at[3] << 8 | at[4];
        struct field f;
        if (n > (size_t)(end - at - 5)) break;
        at += 5;
        seen++;
        if (find_field(at, n, 1, &f)) {
            long code = status_code(&f);
            if (code != OK && !(w->path == PATH_RECEIVE && code == MESSAGE_NOT_FOUND))
                note_error(paths[w->path], code);
        } else if (w->path == PATH_RECEIVE && find_field(at, n, 2, &f)) take_message(w, &f);
        at += n;
    }
    if (!seen || at != end) note_error("an answer without a whole message", 0);
    if (messages_in != before) last_message_ns = now_ns();
    else if (w->path == PATH_RECEIVE) empty_receives++;
}

static void ended(struct connection *c, int number) {
    struct worker *w = &c->workers[number];
    uint64_t t = now_ns();
    check_answer(w);
    if (t >= measure_ns && (w->path != PATH_RECEIVE || w->entries.used || !strcmp(mode, "drain"))) {
        answers++;
        if (latency_count < LATENCIES_MAX) latencies[latency_count++] = (t - w->sent_at) / 1000;
    }
    w->stream = 0;
    if (t < end_ns) start_work(c, number);
    else if (!--c->running) left--;
}

static void begin_work(struct connection *c) {
    c->ready = 1;
    for (int i = 0; i < inflight; i++) start_work(c, i);
    c->running = inflight;
}

static void frame(struct connection *c, int kind, int flags, uint32_t stream, const char *data, size_t n) {
    if (kind == PING && !(flags & ACK)) {
        put_head(&c->out, 8, PING, ACK, 0);
        put(&c->out, data, n);
    } else if (kind == SETTINGS && !(flags & ACK)) {
        put_head(&c->out, 0, SETTINGS, ACK, 0);
    } else if (kind == GOAWAY) {
        fail("the server goes away");
    } else if (kind == RST_STREAM && stream != TELEMETRY_STREAM) {
        note_error("RST_STREAM", data[3]);
    } else if (kind == DATA || kind == HEADERS) {
        if (kind == DATA) {
            c->credit += n;
            if (c->credit > 1u << 20) {
                uint32_t word = htonl(c->credit);
                put_head(&c->out, 4, WINDOW_UPDATE, 0, 0);
                put(&c->out, &word, 4);
                c->credit = 0;
            }
        }
        if (stream == TELEMETRY_STREAM) {
            if (flags & END_STREAM) {  /* producers do without */
                fprintf(stderr, "grpcload: the Telemetry stream ended:");
                for (size_t i = 0; i < n; i++) fputc(data[i] >= ' ' && data[i] < 127 ? data[i] : ' ', stderr);
                fputc('\n', stderr);
                if (strcmp(mode, "send")) exit(2);
                if (!c->ready) begin_work(c);
            }
            if (kind == DATA && !c->ready) begin_work(c);
            return;
        }
        int number = c->worker_of[stream / 2 % STREAMS];
        if (c->workers[number].stream != stream) return;
        if (kind == DATA) put(&c->workers[number].in, data, n);
        if (flags & END_STREAM) ended(c, number);
    }
}

/* -- sockets */

static void flush_out(struct connection *c) {
    size_t at = 0;
    while (at < c->out.used) {
        ssize_t n = write(c->fd, c->out.data + at, c->out.used - at);
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
    c->out.used = 0;
}

static void take(struct connection *c) {
    for (;;) {
        ssize_t n = read(c->fd, c->in.data + c->in.used, IN_BYTES - c->in.used);
        if (n == 0) fail("the server closed the connection");
        if (n < 0) { if (errno == EAGAIN) break; die("read"); }
        c->in.used += n;
        bytes_in += n;
        size_t at = 0;
        while (c->in.used - at >= 9) {
            const unsigned char *head = (unsigned char *)c->in.data + at;
            size_t length = head[0] << 16 | head[1] << 8 | head[2];
            uint32_t stream = (uint32_t)(head[5] & 0x7f) << 24 | head[6] << 16 | head[7] << 8 | head[8];
            if (c->in.used - at < length + 9) break;
            frame(c, head[3], head[4], stream, (char *)head + 9, length);
            at += length + 9;
        }
        memmove(c->in.data, c->in.data + at, c->in.used - at);
        c->in.used -= at;
        if ((size_t)n < 65536) break;
    }
    if (c->out.used) flush_out(c);
}

static void open_connection(struct connection *c, int number) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct bytes request = {0};
    uint32_t more = htonl(WINDOW - 65535);
    int one = 1;
    if (inet_pton(AF_INET, host, &address.sin_addr) != 1) fail("the host is no IPv4 address");
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address) < 0) die("connect");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    c->number = number;
    c->in.data = malloc(IN_BYTES);
    c->workers = calloc(inflight, sizeof *c->workers);
    c->worker_of = calloc(STREAMS, sizeof *c->worker_of);
    c->next_stream = TELEMETRY_STREAM + 2;
    put(&c->out, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24);
    put_head(&c->out, 6, SETTINGS, 0, 0);
    put(&c->out, "\0\4\x7f\xff\xff\xff", 6);  /* INITIAL_WINDOW_SIZE */
    put_head(&c->out, 4, WINDOW_UPDATE, 0, 0);
    put(&c->out, &more, 4);
    put_headers(c, PATH_TELEMETRY, TELEMETRY_STREAM);
    put_settings(&request);
    put_message(c, TELEMETRY_STREAM, 0, &request);
    free(request.data);
    flush_out(c);
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

static void run(void) {
    struct connection *all = calloc(connections, sizeof *all);
    struct epoll_event events[256];
    int epoll = epoll_create1(0);
    left = connections;
    measure_ns = now_ns() + (uint64_t)(warmup * 1e9);
    end_ns = measure_ns + (uint64_t)(seconds * 1e9);
    for (int i = 0; i < connections; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &all[i]};
        open_connection(&all[i], i);
        epoll_ctl(epoll, EPOLL_CTL_ADD, all[i].fd, &event);
    }
    while (left > 0) {
        int n = wait_for(epoll, events, 256);
        if (n == 0) fail("no answer for 10 s");
        for (int i = 0; i < n; i++) take(events[i].data.ptr);
    }
}

static int by_value(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static void report(void) {
    uint64_t stop = *mode == 'd' && last_message_ns ? last_message_ns : now_ns();
    double elapsed = (stop - measure_ns) / 1e9;
    double done = *mode == 's' ? answers : messages_in;
    qsort(latencies, latency_count, sizeof *latencies, by_value);
    double p50 = latency_count ? latencies[latency_count / 2] : 0;
    double p99 = latency_count ? latencies[(size_t)(latency_count * 0.99)] : 0;
    double worst = latency_count ? latencies[latency_count - 1] : 0;
    printf("{\"mode\":\"%s\",\"answers\":%llu,\"messages\":%llu,\"seconds\":%.3f,\"rate\":%.1f,\"p50\":%.0f,"
           "\"p99\":%.0f,\"max\":%.0f,\"empty\":%llu,\"bytes_per_second\":%.0f,\"errors\":%llu,"
           "\"first_error\":\"%s\"}\n",
           mode, (unsigned long long)answers, (unsigned long long)messages_in, elapsed, done / elapsed, p50, p99,
           worst, (unsigned long long)empty_receives, bytes_in / elapsed, (unsigned long long)errors, first_error);
}

int main(int argc, char **argv) {
    if (argc < 4) { fprintf(stderr, "usage: see the top of grpcload.c\n"); return 2; }
    mode = argv[1];
    host = argv[2];
    port = atoi(argv[3]);
    for (int i = 4; i + 1 < argc; i += 2) {
        const char *name = argv[i], *value = argv[i + 1];
        if (!strcmp(name, "--connections")) connections = atoi(value);
        else if (!strcmp(name, "--inflight")) inflight = atoi(value);
        else if (!strcmp(name, "--spin")) spin = atoi(value);
        else if (!strcmp(name, "--size")) size = atoi(value);
        else if (!strcmp(name, "--batch")) batch = atoi(value);
        else if (!strcmp(name, "--seconds")) seconds = atof(value);
        else if (!strcmp(name, "--warmup")) warmup = atof(value);
        else if (!strcmp(name, "--topic")) topic = value;
        else if (!strcmp(name, "--group")) group = value;
        else { fprintf(stderr, "grpcload: unknown option %s\n", name); return 2; }
    }
    if (strcmp(mode, "send") && strcmp(mode, "consume") && strcmp(mode, "drain")) fail("unknown mode");
    latencies = malloc(sizeof *latencies * (size_t)LATENCIES_MAX);
    make_requests();
    run();
    report();
    return errors ? 1 : 0;
}
