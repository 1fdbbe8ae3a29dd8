// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// server: people who know each other's names send each other lines.
//
//     cc server.c -o server $(pkg-config --cflags --libs poolobject)
//     ./server 7000 &
//     nc 127.0.0.1 7000
//
// What is worth a look: a session owns its descriptor and closes it in release, wherever the last
// reference goes. A session and its handler refer to each other, so that the last reference is the
// collector's to find; it runs when nothing else is to be done (PO_GC_POLL), and also when
// descriptors run out. The registry of names refers to sessions weakly: it keeps none alive, and
// forgets the name of one that has ended.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <poolobject.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    LINE_ROOM = 512,
    OUT_MAX = 1 << 16, // more that a client does not read ends its session
    EVENTS = 64,
    IDLE_MS = 50,
    POLL_NS = 2000000, // what a run of the collector may take
};

struct server {
    po_state *state;
    po_object *sessions; // dict: descriptor -> session
    po_object *registry; // dict: name -> weak reference to a session
    int epoll, listener, signals;
    bool ends;
    size_t accepted;
};

// --- Types ---------------------------------------------------------------------------------------

struct session {
    PO_HEAD;
    po_object *handler;
    po_object *name; // str, or NULL
    int descriptor;
    bool is_open;
    char *out; // what the client has not read yet
    size_t out_size, in_size;
    char in[LINE_ROOM];
};

// What a session does with a line: of one without a name, or of one with a name.
struct handler {
    PO_HEAD;
    po_object *session;
    void (*line)(struct server *server, struct session *session, char *line);
};

static size_t released; // sessions

static struct session *session_of(const po_object *object) {
    return (struct session *)object;
}

static int traverse_session(const po_object *self, po_visit visit, void *argument) {
    PO_VISIT(session_of(self)->handler);
    PO_VISIT(session_of(self)->name);
    return 0;
}

static void clear_session(po_object *self) {
    po_clear(&session_of(self)->handler);
    po_clear(&session_of(self)->name);
}

// A new session is all zero: then it owns nothing yet.
static void release_session(po_object *self) {
    struct session *const session = session_of(self);
    if (session->descriptor > 0) {
        close(session->descriptor);
        released++;
    }
    free(session->out);
}

static po_type session_type = {
    .name = "session",
    .size = sizeof(struct session),
    .traverse = traverse_session,
    .clear = clear_session,
    .release = release_session,
};

static int traverse_handler(const po_object *self, po_visit visit, void *argument) {
    PO_VISIT(((const struct handler *)self)->session);
    return 0;
}

static void clear_handler(po_object *self) {
    po_clear(&((struct handler *)self)->session);
}

static po_type handler_type = {
    .name = "handler",
    .size = sizeof(struct handler),
    .traverse = traverse_handler,
    .clear = clear_handler,
};

static int complain(const char *what) {
    fprintf(stderr, "server: %s\n", what);
    return -1;
}

static int complain_objects(void) {
    return complain(po_error_last().text);
}

static int complain_system(const char *what) {
    fprintf(stderr, "server: %s: %s\n", what, strerror(errno));
    return -1;
}

// --- Sessions ------------------------------------------------------------------------------------

// The client sees the end at once; the descriptor is closed when the session goes.
static void hang_up(struct server *server, struct session *session) {
    if (!session->is_open) {
        return;
    }
    session->is_open = false;
    epoll_ctl(server->epoll, EPOLL_CTL_DEL, session->descriptor, NULL);
    shutdown(session->descriptor, SHUT_RDWR);
    PO_AUTO po_object *key = po_int(server->state, session->descriptor);
    if (key == NULL || po_dict_remove(server->sessions, key) < 0) {
        complain_objects();
    }
}

static int watch(const struct server *server, int descriptor, uint32_t events, int operation) {
    struct epoll_event event = { .events = events, .data.fd = descriptor };
    return epoll_ctl(server->epoll, operation, descriptor, &event);
}

// Sends what waits; what the client does not take yet goes on waiting.
static void flush(struct server *server, struct session *session) {
    size_t sent = 0;
    while (sent < session->out_size) {
        const ssize_t n = send(session->descriptor, session->out + sent, session->out_size - sent,
                               MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno != EINTR) {
            break;
        }
        sent += n > 0 ? (size_t)n : 0;
    }
    const bool failed = sent < session->out_size && errno != EAGAIN;
    session->out_size -= sent;
    memmove(session->out, session->out + sent, session->out_size);
    const uint32_t events = session->out_size > 0 ? EPOLLIN | EPOLLOUT : EPOLLIN;
    if (failed || watch(server, session->descriptor, events, EPOLL_CTL_MOD) < 0) {
        hang_up(server, session);
    }
}

// A line of up to three parts.
static void say(struct server *server, struct session *session, const char *first,
                const char *second, const char *third) {
    const size_t size = strlen(first) + strlen(second) + strlen(third) + 1;
    char *const out = session->is_open && session->out_size + size <= OUT_MAX
                          ? realloc(session->out, session->out_size + size + 1)
                          : NULL;
    if (out == NULL) {
        hang_up(server, session);
        return;
    }
    session->out = out;
    sprintf(out + session->out_size, "%s%s%s\n", first, second, third);
    session->out_size += size;
    flush(server, session);
}

static void say_error(struct server *server, struct session *session) {
    say(server, session, "error: ", po_error_last().text, "");
}

// Gives the session another handler, which refers to it in turn.
static int handle_by(struct server *server, struct session *session,
                     void (*line)(struct server *server, struct session *session, char *line)) {
    po_object *const made = po_new(server->state, &handler_type);
    if (made == NULL) {
        return -1;
    }
    struct handler *const handler = (struct handler *)made;
    handler->line = line;
    po_set(&handler->session, &session->object);
    po_set_take(&session->handler, made);
    return 0;
}

// --- The registry --------------------------------------------------------------------------------

// The open session with a name: a new reference, or NULL. A closed one may still wait for the
// collector.
static po_object *find(struct server *server, po_object *name) {
    po_object *weakref, *session = NULL;
    if (po_dict_get(server->registry, name, &weakref) == 1) {
        po_weakref_get(weakref, &session);
    }
    if (session != NULL && !session_of(session)->is_open) {
        po_clear(&session);
    }
    return session;
}

// A session has ended: its name goes, if no other session has it by now. `data` is (registry,
// name).
static void forget(po_object *weakref, po_object *data) {
    po_object *const registry = po_tuple_at(data, 0), *const name = po_tuple_at(data, 1), *known;
    if (po_dict_get(registry, name, &known) == 1 && known == weakref) {
        po_dict_remove(registry, name);
    }
}

static int enter(struct server *server, struct session *session, po_object *name) {
    po_object *const parts[] = { server->registry, name };
    PO_AUTO po_object *data = po_tuple(server->state, 2, parts);
    PO_AUTO po_object *weakref =
        data != NULL ? po_weakref(server->state, &session->object, forget, data) : NULL;
    return weakref != NULL ? po_dict_set(server->registry, name, weakref) : -1;
}

// --- Lines ---------------------------------------------------------------------------------------

// The rest of a line that begins with this word, or NULL.
static char *after(char *line, const char *word) {
    const size_t n = strlen(word);
    return strncmp(line, word, n) != 0 || (line[n] != ' ' && line[n] != 0) ? NULL
           : line[n] == ' '                                                ? line + n + 1
                                                                           : line + n;
}

static void tell(struct server *server, struct session *session, char *rest) {
    char *const text = strchr(rest, ' ');
    if (text == NULL) {
        say(server, session, "error: tell NAME TEXT", "", "");
        return;
    }
    *text = 0;
    PO_AUTO po_object *name = po_str(server->state, rest, strlen(rest));
    PO_AUTO po_object *to = name != NULL ? find(server, name) : NULL;
    if (to == NULL) {
        say(server, session, "error: nobody is ", rest, "");
        return;
    }
    say(server, session_of(to), po_str_data(session->name), ": ", text + 1);
    say(server, session, "ok", "", "");
}

// No session ends meanwhile, which would change the registry: each is in a cycle, and the collector
// runs in its own time.
static void who(struct server *server, struct session *session) {
    po_object *name, *weakref;
    for (size_t at = 0; po_dict_next(server->registry, &at, &name, &weakref);) {
        PO_AUTO po_object *other = find(server, name);
        if (other != NULL) {
            say(server, session, "is here: ", po_str_data(name), "");
        }
    }
    say(server, session, "ok", "", "");
}

static void line_of_named(struct server *server, struct session *session, char *line) {
    char *const rest = after(line, "tell");
    if (rest != NULL) {
        tell(server, session, rest);
    } else if (after(line, "who") != NULL) {
        who(server, session);
    } else {
        say(server, session, "error: tell NAME TEXT, who, or quit", "", "");
    }
}

static void line_of_nameless(struct server *server, struct session *session, char *line) {
    char *const rest = after(line, "name");
    if (rest == NULL || *rest == 0 || strchr(rest, ' ') != NULL) {
        say(server, session, "error: name NAME, or quit", "", "");
        return;
    }
    PO_AUTO po_object *name = po_str(server->state, rest, strlen(rest));
    PO_AUTO po_object *other = name != NULL ? find(server, name) : NULL;
    if (other != NULL) {
        say(server, session, "error: somebody else is ", rest, "");
    } else if (name == NULL || enter(server, session, name) < 0 ||
               handle_by(server, session, line_of_named) < 0) {
        say_error(server, session);
    } else {
        po_set(&session->name, name);
        say(server, session, "ok", "", "");
    }
}

// The handler may give the session another one.
static void handle(struct server *server, struct session *session, char *line) {
    if (after(line, "quit") != NULL) {
        say(server, session, "bye", "", "");
        hang_up(server, session);
        return;
    }
    PO_AUTO po_object *handler = po_incref(session->handler);
    ((struct handler *)handler)->line(server, session, line);
}

static void handle_all(struct server *server, struct session *session) {
    char *at = session->in, *end;
    char *const in_end = session->in + session->in_size;
    while (session->is_open && (end = memchr(at, '\n', (size_t)(in_end - at))) != NULL) {
        *end = 0;
        if (end > at && end[-1] == '\r') {
            end[-1] = 0;
        }
        handle(server, session, at);
        at = end + 1;
    }
    session->in_size = (size_t)(in_end - at);
    memmove(session->in, at, session->in_size);
    if (session->in_size == LINE_ROOM) {
        say(server, session, "error: too long a line", "", "");
        hang_up(server, session);
    }
}

// --- Events --------------------------------------------------------------------------------------

static void receive(struct server *server, struct session *session) {
    const ssize_t n = recv(session->descriptor, session->in + session->in_size,
                           LINE_ROOM - session->in_size, MSG_DONTWAIT);
    if (n > 0) {
        session->in_size += (size_t)n;
        handle_all(server, session);
    } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
        hang_up(server, session);
    }
}

// A descriptor without a session was hung up after its event came.
static void serve(struct server *server, const struct epoll_event *event) {
    PO_AUTO po_object *key = po_int(server->state, event->data.fd);
    po_object *found;
    if (key == NULL || po_dict_get(server->sessions, key, &found) != 1) {
        return;
    }
    PO_AUTO po_object *session = po_incref(found);
    if (event->events & EPOLLOUT) {
        flush(server, session_of(session));
    }
    if (session_of(session)->is_open && (event->events & ~(uint32_t)EPOLLOUT)) {
        receive(server, session_of(session));
    }
}

// Takes the descriptor: also a session that can't be served closes it.
static int open_session(struct server *server, int descriptor) {
    PO_AUTO po_object *made = po_new(server->state, &session_type);
    if (made == NULL) {
        close(descriptor);
        return -1;
    }
    session_of(made)->descriptor = descriptor;
    server->accepted++;
    PO_AUTO po_object *key = po_int(server->state, descriptor);
    if (key == NULL || handle_by(server, session_of(made), line_of_nameless) < 0 ||
        po_dict_set(server->sessions, key, made) < 0) {
        return -1;
    }
    session_of(made)->is_open = true;
    if (watch(server, descriptor, EPOLLIN, EPOLL_CTL_ADD) < 0) {
        hang_up(server, session_of(made));
    }
    return 0;
}

static void accept_one(struct server *server) {
    int descriptor = accept4(server->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (descriptor < 0 && (errno == EMFILE || errno == ENFILE)) {
        // Sessions that were hung up may hold some still.
        po_gc_collect(server->state, 2);
        descriptor = accept4(server->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    }
    if (descriptor < 0) {
        complain_system("accept");
    } else if (open_session(server, descriptor) < 0) {
        complain_objects();
    }
}

static int run(struct server *server) {
    struct epoll_event events[EVENTS];
    while (!server->ends) {
        const int n = epoll_wait(server->epoll, events, EVENTS, IDLE_MS);
        if (n < 0 && errno != EINTR) {
            return complain_system("epoll_wait");
        }
        for (int i = 0; i < n; i++) {
            if (events[i].data.fd == server->listener) {
                accept_one(server);
            } else if (events[i].data.fd == server->signals) {
                server->ends = true;
            } else {
                serve(server, &events[i]);
            }
        }
        if (n == 0) {
            po_gc_poll(server->state, POLL_NS);
        }
    }
    return 0;
}

// --- The program ---------------------------------------------------------------------------------

static int listen_at(struct server *server, uint16_t port) {
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(port) };
    socklen_t size = sizeof address;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    server->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    const int on = 1;
    if (server->listener < 0 ||
        setsockopt(server->listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
        bind(server->listener, (struct sockaddr *)&address, size) < 0 ||
        listen(server->listener, SOMAXCONN) < 0 ||
        getsockname(server->listener, (struct sockaddr *)&address, &size) < 0) {
        return complain_system("127.0.0.1");
    }
    printf("server: listening at 127.0.0.1 port %u\n", ntohs(address.sin_port));
    return fflush(stdout) == 0 ? 0 : complain_system("standard output");
}

// SIGINT and SIGTERM become events.
static int open_events(struct server *server) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    server->signals = signalfd(-1, &set, SFD_CLOEXEC);
    server->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (server->signals < 0 || server->epoll < 0 ||
        watch(server, server->signals, EPOLLIN, EPOLL_CTL_ADD) < 0 ||
        watch(server, server->listener, EPOLLIN, EPOLL_CTL_ADD) < 0) {
        return complain_system("events");
    }
    return 0;
}

// The collector runs in po_gc_poll only; few objects are made here, so it is due after few.
static int open_objects(struct server *server) {
    const struct po_gc_config config = { PO_GC_POLL, { 20, 5, 5 } };
    server->state = po_state_new();
    if (server->state == NULL || po_gc_configure(server->state, &config) < 0) {
        return complain_objects();
    }
    server->sessions = po_dict(server->state);
    server->registry = po_dict(server->state);
    return server->sessions != NULL && server->registry != NULL ? 0 : complain_objects();
}

static int close_all(struct server *server) {
    const size_t before = released;
    po_clear(&server->sessions);
    po_clear(&server->registry);
    const size_t left = po_state_free(server->state, STDERR_FILENO);
    const int descriptors[] = { server->epoll, server->listener, server->signals };
    for (size_t i = 0; i < sizeof descriptors / sizeof *descriptors; i++) {
        if (descriptors[i] >= 0) {
            close(descriptors[i]);
        }
    }
    printf("server: %zu sessions, %zu released before the end, %zu objects left\n",
           server->accepted, before, left);
    return left == 0 && released == server->accepted ? 0 : -1;
}

int main(int count, char **arguments) {
    char *end = NULL;
    const unsigned long port = count == 2 ? strtoul(arguments[1], &end, 10) : 0;
    if (count == 2 && (strcmp(arguments[1], "-h") == 0 || strcmp(arguments[1], "--help") == 0)) {
        puts("usage: server PORT\n"
             "Serves lines at 127.0.0.1, until SIGINT or SIGTERM. PORT 0 is any that is free.\n"
             "Clients say: name NAME; then tell NAME TEXT, who; and quit.");
        return 0;
    }
    if (count != 2 || arguments[1][0] < '0' || arguments[1][0] > '9' || *end != 0 || port > 65535) {
        complain("usage: server PORT (-h tells more)");
        return 2;
    }
    struct server server = { .epoll = -1, .listener = -1, .signals = -1 };
    const bool done = listen_at(&server, (uint16_t)port) == 0 && open_events(&server) == 0 &&
                      open_objects(&server) == 0 && run(&server) == 0;
    return close_all(&server) == 0 && done ? 0 : 1;
}
