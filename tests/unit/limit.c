// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// core/limit: what counts, what is refused, and what a control group allows.

#include "fake_os.h"
#include "pools.h"
#include "unit.h"

#include "config/options.h"
#include "core/limit.h"
#include "core/run.h"
#include "poolmalloc.h"

#include <errno.h>
#include <string.h>

#define TEST(name) UNIT_TEST(limit, name)
#define MIB        ((size_t)1 << 20)

// What the options say after the control group was asked; *said is what was written to stderr.
static void attach(const char **said) {
    pm_options.limit = PM_LIMIT_CGROUP;
    unit_capture();
    pm_limit_attach();
    *said = unit_captured();
}

TEST(a_group_of_version_2_leaves_a_part_to_others) {
    const char *said;
    fake_file("/proc/self/cgroup", "0::/a/b\n");
    fake_file("/sys/fs/cgroup/a/b/memory.max", "1073741824\n");
    attach(&said);
    CHECK(*said == '\0', "'%s'", said);
    CHECK(pm_options.limit_hard == 960 * MIB && pm_options.limit_soft == 900 * MIB);
}

TEST(the_least_limit_of_the_groups_above_counts) {
    const char *said;
    fake_file("/proc/self/cgroup", "0::/a/b/c\n");
    fake_file("/sys/fs/cgroup/a/b/c/memory.max", "max\n");
    fake_file("/sys/fs/cgroup/a/b/memory.max", "536870912\n");
    fake_file("/sys/fs/cgroup/a/memory.max", "1073741824\n");
    attach(&said);
    CHECK(pm_options.limit_hard == 480 * MIB, "%zu", pm_options.limit_hard);
}

TEST(a_container_sees_its_own_group_at_the_top) {
    const char *said;
    fake_file("/proc/self/cgroup", "0::/../../somewhere/else\n");
    fake_file("/sys/fs/cgroup/memory.max", "67108864\n");
    attach(&said);
    CHECK(pm_options.limit_hard == 60 * MIB, "%zu", pm_options.limit_hard);
}

TEST(a_group_of_version_1_is_found_by_its_controller) {
    const char *said;
    fake_file("/proc/self/cgroup", "9:name=systemd:/x\n8:cpu,cpuacct:/y\n7:hugetlb,memory:/z/\n"
                                   "1:memory_not:/y\n0::/\n");
    fake_file("/sys/fs/cgroup/memory/z/memory.limit_in_bytes", "67108864\n");
    fake_file("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    fake_file("/sys/fs/cgroup/memory/y/memory.limit_in_bytes", "4096\n");
    attach(&said);
    CHECK(pm_options.limit_hard == 60 * MIB, "%zu", pm_options.limit_hard);
}

TEST(a_limit_that_was_given_may_be_lower) {
    const char *said;
    pm_options.limit_hard = 10 * MIB;
    fake_file("/proc/self/cgroup", "0::/\n");
    fake_file("/sys/fs/cgroup/memory.max", "67108864");
    attach(&said);
    CHECK(pm_options.limit_hard == 10 * MIB);
}

static void check_no_limit(void) {
    const char *said;
    attach(&said);
    CHECK(strstr(said, "no memory limit") != NULL, "'%s'", said);
    CHECK(pm_options.limit_hard == PM_OPTION_UNSET && pm_options.limit_soft == PM_OPTION_UNSET);
    CHECK(pm_limit_allows(PTRDIFF_MAX));
}

TEST(a_group_without_a_limit_is_no_limit) {
    fake_file("/proc/self/cgroup", "4:memory:/\n0::/a\n");
    fake_file("/sys/fs/cgroup/a/memory.max", "max\n");
    fake_file("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    check_no_limit();
}

TEST(no_groups_are_no_limit) {
    fake_file("/proc/self/cgroup", NULL);
    check_no_limit();
}

TEST(what_is_no_group_is_no_limit) {
    fake_file("/proc/self/cgroup", "0:\n::\n\n:::\nmemory\n0::");
    fake_file("/sys/fs/cgroup/memory.max", "99999999999999999999999");
    check_no_limit();
}

TEST(everything_that_is_resident_counts) {
    static struct pm_pool *pools[4];
    pools_take_many(pools, 1, 64, true);
    const size_t before = pm_limit_footprint();
    pools_take_many(pools + 1, 3, 64, true);
    CHECK(pm_limit_footprint() == before + 3 * PM_POOL_BYTES(PM_SMALL_POOL_BITS));
    pools_give_many(pools + 1, 3);
    CHECK(pm_limit_footprint() == before + 3 * PM_POOL_BYTES(PM_SMALL_POOL_BITS), "still there");
    pm_malloc_trim(0);
    CHECK(pm_limit_footprint() == before);
    char *const run = unit_take(MIB), *const huge = unit_take(64 * MIB);
    CHECK(pm_limit_footprint() >= before + 65 * MIB);
    pm_free(run);
    pm_free(huge);
    CHECK(pm_limit_footprint() >= before + 1 * MIB);
    pm_malloc_trim(0);
    CHECK(pm_limit_footprint() < before + MIB / 2);
}

TEST(free_memory_goes_back_before_a_request_fails) {
    char *const first = unit_take(3 * MIB);
    pm_options.limit_hard = pm_limit_footprint() + MIB;
    unit_capture();
    pm_free(first);
    char *const second = pm_malloc(3 * MIB + 100000);
    CHECK(second != NULL, "what was freed makes room");
    errno = 0;
    CHECK(pm_malloc(4 * MIB) == NULL && errno == ENOMEM);
    CHECK(pm_realloc(second, 9 * MIB) == NULL && errno == ENOMEM);
    CHECK(pm_malloc(100 * MIB) == NULL && pm_calloc(100, MIB) == NULL);
    char *const small = unit_take(100);
    const char *const said = unit_captured();
    CHECK(strstr(said, "hard limit of") != NULL, "'%s'", said);
    CHECK(strchr(said, '\n') == said + strlen(said) - 1, "one line: '%s'", said);
    pm_free(small);
    pm_free(second);
    AUDIT();
}

TEST(a_huge_block_grows_to_the_limit_and_not_beyond) {
    char *block = unit_take(70 * MIB);
    pm_options.limit_hard = pm_limit_footprint() + 20 * MIB;
    unit_capture();
    char *const grown = pm_realloc(block, 80 * MIB);
    CHECK(grown != NULL);
    CHECK(pm_realloc(grown, 110 * MIB) == NULL);
    CHECK(pm_malloc_usable_size(grown) == 80 * MIB, "it stays as it was");
    CHECK(pm_realloc(grown, 40 * MIB) == grown, "shrinking needs no memory");
    unit_captured();
    pm_free(grown);
    AUDIT();
}

TEST(at_the_soft_limit_free_memory_goes_back_and_it_is_said_once) {
    static char *blocks[64];
    pm_options.limit_soft = 16 * MIB;
    unit_capture();
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < 64; i++) {
            blocks[i] = unit_take(MIB / 2);
        }
        for (unsigned i = 0; i < 64; i++) {
            pm_free(blocks[i]);
        }
        CHECK(pm_limit_footprint() < 18 * MIB, "%zu", pm_limit_footprint());
    }
    const char *const said = unit_captured();
    CHECK(strstr(said, "soft limit of 16777216 bytes") != NULL, "'%s'", said);
    CHECK(strchr(said, '\n') == said + strlen(said) - 1, "one line: '%s'", said);
    AUDIT();
}
