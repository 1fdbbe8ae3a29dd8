// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// The stress run as a program: on whichever malloc it runs with, so LD_PRELOAD says what is tested.

#include "stress.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static int usage(void) {
    fputs("usage: stress [--threads N] [--ops N] [--lives N] [--seed N|random] [--max-live BYTES] "
          "[--audit] [--quiet]\n"
          "Allocates and frees with a shadow model and says whether all promises were kept.\n"
          "  --threads   run so many at a time\n"
          "  --ops       operations of each\n"
          "  --lives     each thread ends and is started anew so often\n"
          "  --max-live  bytes in use at a time, all threads together\n"
          "  --audit     walk the allocator's structures now and then, if it was built for that\n",
          stderr);
    return 2;
}

static bool read_number(const char *text, uint64_t *number) {
    char *end;
    errno = 0;
    *number = strtoull(text, &end, 0);
    return errno == 0 && end != text && *end == '\0' && *text != '-';
}

int main(int argc, char **argv) {
    enum { THREADS = 1, OPS, LIVES, SEED, MAX_LIVE, AUDIT, QUIET };
    static const struct option known[] = {
        { "threads", required_argument, NULL, THREADS },
        { "ops", required_argument, NULL, OPS },
        { "lives", required_argument, NULL, LIVES },
        { "seed", required_argument, NULL, SEED },
        { "max-live", required_argument, NULL, MAX_LIVE },
        { "audit", no_argument, NULL, AUDIT },
        { "quiet", no_argument, NULL, QUIET },
        { 0 },
    };
    struct stress_options options = stress_defaults;
    for (int option; (option = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        uint64_t number = 0;
        if (option == SEED && optarg[0] == 'r') {
            struct timespec now;
            clock_gettime(CLOCK_REALTIME, &now);
            options.seed = (uint64_t)now.tv_sec * 1000003 ^ (uint64_t)now.tv_nsec;
            continue;
        }
        if (option != AUDIT && option != QUIET &&
            (option == '?' || !read_number(optarg, &number))) {
            return usage();
        }
        switch (option) {
        case THREADS: options.threads = (unsigned)number; break;
        case OPS: options.ops = number; break;
        case LIVES: options.lives = (unsigned)number; break;
        case SEED: options.seed = number; break;
        case MAX_LIVE: options.max_live = (size_t)number; break;
        case AUDIT: options.audit = true; break;
        case QUIET: options.quiet = true; break;
        default: return usage();
        }
    }
    if (optind != argc) {
        return usage();
    }
    return stress_run(&options) ? 0 : 1;
}
