// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// Runs a real program with a library preloaded and prints what it cost:
//     pm-bench-launch LIBRARY PROGRAM [ARGUMENT]...      (LIBRARY "" preloads nothing)
// The kernel carries the peak of a process over exec, so a program started by a large parent shows
// the parent's memory as its own. This launcher is small and is the parent for that reason alone.
// The program's standard output is thrown away; its children count with it.

#include "figures.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { EXIT_NOT_STARTED = 127 };

static _Noreturn void become(const char *library, char **command) {
    const int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (null < 0 || dup2(null, STDOUT_FILENO) < 0) {
        perror("pm-bench-launch: /dev/null");
        _exit(EXIT_NOT_STARTED);
    }
    if (library[0] != '\0') {
        setenv("LD_PRELOAD", library, 1);
    } else {
        unsetenv("LD_PRELOAD");
    }
    execvp(command[0], command);
    fprintf(stderr, "pm-bench-launch: cannot start %s: %s\n", command[0], strerror(errno));
    _exit(EXIT_NOT_STARTED);
}

int main(int argc, char **argv) {
    if (argc < 3) {
        fprintf(stderr, "usage: %s LIBRARY PROGRAM [ARGUMENT]...\n", argv[0]);
        return 2;
    }
    const double start = bench_clock();
    const pid_t child = fork();
    if (child < 0) {
        perror("pm-bench-launch: fork");
        return 1;
    }
    if (child == 0) {
        become(argv[1], argv + 2);
    }
    int status;
    struct rusage usage;
    if (wait4(child, &status, 0, &usage) != child) {
        perror("pm-bench-launch: wait4");
        return 1;
    }
    struct bench_figures figures = bench_figures_of(&usage);
    figures.seconds = bench_clock() - start;
    if (WIFSIGNALED(status)) {
        fprintf(stderr, "pm-bench-launch: %s was ended by signal %d (%s)\n", argv[2],
                WTERMSIG(status), strsignal(WTERMSIG(status)));
        return 1;
    }
    if (WEXITSTATUS(status) != 0) {
        fprintf(stderr, "pm-bench-launch: %s exited with %d\n", argv[2], WEXITSTATUS(status));
        return 1;
    }
    bench_figures_print(&figures);
    putchar('\n');
    return 0;
}
