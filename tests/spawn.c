// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// Starts another program: fork, limits, exec; its output goes to memory files, so that neither side
// can block the other; the end is awaited on a pidfd, so that a deadline needs neither signals nor
// sleep.

#include "spawn.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <fcntl.h>
#include <unistd.h>

enum { EXIT_NOT_STARTED = 127 };

static void set_environment(const char *const *env) {
    for (; *env != NULL; env++) {
        const char *const equals = strchr(*env, '=');
        if (equals == NULL) {
            unsetenv(*env);
        } else {
            char *const name = strndup(*env, (size_t)(equals - *env));
            setenv(name, equals + 1, 1);
            free(name);
        }
    }
}

static void become(const struct spawn *spawn, int out, int err) {
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL); // a test that is itself killed leaves nothing running
    const int in = open("/dev/null", O_RDONLY);
    if (in < 0 || dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(err, 2) < 0) {
        _exit(EXIT_NOT_STARTED);
    }
    if (spawn->directory != NULL && chdir(spawn->directory) != 0) {
        dprintf(2, "can't change to %s: %s\n", spawn->directory, strerror(errno));
        _exit(EXIT_NOT_STARTED);
    }
    signal(SIGPIPE, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    const struct rlimit no_core = { 0 };
    setrlimit(RLIMIT_CORE, &no_core);
    set_environment(spawn->env);
    if (spawn->address_space != 0) {
        const struct rlimit limit = { spawn->address_space, spawn->address_space };
        setrlimit(RLIMIT_AS, &limit);
    }
    execvp(spawn->argv[0], (char *const *)spawn->argv);
    dprintf(2, "can't start %s: %s\n", spawn->argv[0], strerror(errno));
    _exit(EXIT_NOT_STARTED);
}

// Returns false when the deadline came first.
static bool await_end(pid_t pid, unsigned seconds) {
    const int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    cr_assert(fd >= 0, "pidfd_open: %s (these tests need Linux 5.3 or newer)", strerror(errno));
    struct pollfd poll_fd = { .fd = fd, .events = POLLIN };
    int ready;
    do {
        ready = poll(&poll_fd, 1, (int)seconds * 1000);
    } while (ready < 0 && errno == EINTR);
    close(fd);
    return ready > 0;
}

static char *read_all(int fd, size_t *size) {
    struct stat st = { 0 };
    fstat(fd, &st);
    char *const text = malloc((size_t)st.st_size + 1);
    const ssize_t got = pread(fd, text, (size_t)st.st_size, 0);
    *size = got < 0 ? 0 : (size_t)got;
    text[*size] = '\0';
    close(fd);
    return text;
}

struct spawned spawn_run(const struct spawn *spawn) {
    const int out = memfd_create("stdout", MFD_CLOEXEC);
    const int err = memfd_create("stderr", MFD_CLOEXEC);
    cr_assert(out >= 0 && err >= 0, "memfd_create: %s", strerror(errno));

    struct spawned spawned = { .exit_code = -1 };
    spawned.pid = fork();
    cr_assert(spawned.pid >= 0, "fork: %s", strerror(errno));
    if (spawned.pid == 0) {
        become(spawn, out, err);
    }
    setpgid(spawned.pid, spawned.pid); // both sides, so that neither has to come first
    spawned.timed_out =
        !await_end(spawned.pid, spawn->seconds == 0 ? SPAWN_SECONDS : spawn->seconds);
    if (spawned.timed_out) {
        kill(-spawned.pid, SIGKILL);
    }
    int status = 0;
    while (waitpid(spawned.pid, &status, 0) < 0 && errno == EINTR) {
    }
    kill(-spawned.pid, SIGKILL); // what it left behind, if anything
    if (WIFEXITED(status)) {
        spawned.exit_code = WEXITSTATUS(status);
    } else {
        spawned.signal = WTERMSIG(status);
    }
    spawned.out = read_all(out, &spawned.out_size);
    spawned.err = read_all(err, &spawned.err_size);
    return spawned;
}

void spawn_drop(struct spawned *spawned) {
    free(spawned->out);
    free(spawned->err);
    spawned->out = spawned->err = NULL;
}

const char *spawn_outcome(const struct spawned *spawned) {
    static char text[64];
    if (spawned->timed_out) {
        snprintf(text, sizeof text, "timed out");
    } else if (spawned->signal != 0) {
        snprintf(text, sizeof text, "signal %d (%s)", spawned->signal, strsignal(spawned->signal));
    } else {
        snprintf(text, sizeof text, "exit code %d", spawned->exit_code);
    }
    return text;
}

bool spawn_finds(const char *program) {
    char *const path = strdup(getenv("PATH") != NULL ? getenv("PATH") : "/usr/bin:/bin");
    bool found = false;
    char *rest = path;
    for (const char *folder = strsep(&rest, ":"); folder != NULL && !found;
         folder = strsep(&rest, ":")) {
        char file[4096];
        snprintf(file, sizeof file, "%s/%s", folder, program);
        found = access(file, X_OK) == 0;
    }
    free(path);
    return found;
}

void spawn_make_directory(char path[static 64]) {
    snprintf(path, 64, "/tmp/poolmalloc-test.XXXXXX");
    cr_assert(mkdtemp(path) != NULL, "mkdtemp %s: %s", path, strerror(errno));
}

void spawn_remove_directory(const char *path) {
    const char *const argv[] = { "rm", "-rf", "--", path, NULL };
    struct spawned removed = spawn_run(&(struct spawn){ .argv = argv });
    spawn_drop(&removed);
}
