# SPDX-License-Identifier: MIT
# Copyright (c) the poolmalloc authors
#
# The table of workloads, and how words of a command line choose among them. The modes that they
# are made of, and what each isolates, are in work_local.c and work_threads.c; real programs are in
# programs.py.

from collections import namedtuple

# `arguments` go to pm-bench-work after the mode. `sets` name the lists that a workload is in.
# `point` is (graph, line, x) for a workload of a sweep. `limit` says that the bare list can serve
# it: blocks of one size, freed by the thread that asked.
Workload = namedtuple("Workload", "name mode arguments sets point limit")

QUICK = ("quick", "standard")
STANDARD = ("standard",)
PAIRS = ("pairs",)
SWEEP = ("sweep",)
SETS = ("quick", "standard", "real", "pairs", "sweep")

# Means are taken over the standard workloads (and those a user makes up): a sweep, or a pair in
# nine forms, would count one mode many times.
NOT_IN_MEANS = (PAIRS, SWEEP)

# The graphs of the sweeps: title, what x is, and the two points whose ratio is printed as growth.
Graph = namedtuple("Graph", "title axis growth")
GRAPHS = {
    "live": Graph("Random replacement of 64-byte blocks", "live blocks", (10**4, 10**7)),
    "bytes": Graph("A free and a malloc, going round eight blocks of a size", "bytes", None),
    "threads": Graph("Threads", "threads", (1, 2)),
}
SWEEP_LINES = {
    "pair": "pairs, each thread its own blocks",
    "replace": "random replacement, each thread its own",
    "large": "random replacement of 140 KB to 1 MB",
    "remote": "many-to-many remote frees",
    "server": "threads that come and go",
}


def workload(name, mode, sets, point=None, **arguments):
    one_size = arguments.get("max", 0 if mode == "pair" else None) == 0 and "size" in arguments
    limit = one_size and mode in ("pair", "bulk", "replace")
    return Workload(name, mode, arguments, sets, point, limit)


def pairs():
    """malloc/free pairs: one live block, eight, a thousand; one byte written, one word, all."""
    found = []
    for live, count in ((1, 30000000), (8, 30000000), (1000, 20000000)):
        for touch in ("word", "byte", "all"):
            sets = QUICK if touch == "word" else STANDARD if live == 1 else PAIRS
            name = "pair-%d" % live + ("" if touch == "word" else "-" + touch)
            found.append(workload(name, "pair", sets, operations=count, size=64, live=live,
                                  touch=touch))
    return found + [
        workload("pair-16b", "pair", STANDARD, operations=30000000, size=16, live=8),
        workload("pair-1024b", "pair", QUICK, operations=20000000, size=1024, live=8),
        workload("pair-mixed", "pair", QUICK, operations=15000000, size=16, max=1024, live=1000,
                 spread="small"),
    ]


def bulk():
    return [
        workload("bulk-" + order, "bulk", sets, operations=6000000, live=100000, size=16, max=256,
                 order=order)
        for order, sets in (("lifo", STANDARD), ("fifo", QUICK), ("random", QUICK))
    ] + [workload("bulk-32b", "bulk", STANDARD, operations=10000000, live=10000, size=32, max=0)]


def local():
    return [
        workload("replace-small", "replace", QUICK, operations=8000000, live=20000, size=16,
                 max=512),
        workload("replace-4k", "replace", QUICK, operations=8000000, live=10000, size=16, max=4096),
        workload("replace-medium", "replace", QUICK, operations=200000, live=1000, size=8192,
                 max=65536, touch="pages", spread="even"),
        workload("replace-large", "replace", QUICK, operations=2500, live=50, size=65536,
                 max=4194304, touch="pages", spread="even"),
        workload("tree", "tree", STANDARD, operations=10000000, threads=1),
        workload("realloc-small", "realloc", STANDARD, operations=4000000, live=1000, max=4096),
        workload("realloc-large", "realloc", QUICK, operations=4000, live=8, size=4096,
                 max=8388608),
        workload("realloc-append", "realloc", STANDARD, operations=30000, live=8, size=4096,
                 max=2097152, step=4096),
        workload("calloc", "calloc", QUICK, operations=1500000),
        workload("aligned", "aligned", STANDARD, operations=2000000),
    ]


def threads():
    return [
        workload("replace-2t", "replace", STANDARD, operations=10000000, threads=2, live=20000),
        workload("tree-2t", "tree", QUICK, operations=16000000, threads=2),
        workload("handoff", "handoff", QUICK, operations=6000000),
        workload("remote", "remote", QUICK, operations=12000000),
        workload("server", "server", QUICK, operations=12000000),
        workload("spawn", "spawn", QUICK, operations=1500000),
    ]


def sweeps():
    """Operations grow with the threads, so that on enough processors equal time is no loss."""
    live = [
        workload("live-1e%d" % power, "replace", SWEEP, ("live", "", 10**power),
                 operations=max(4000000, 3 * 10**power), live=10**power, size=64, max=0)
        for power in range(3, 8)
    ]
    sizes = [
        workload("bytes-%d" % size, "pair", SWEEP, ("bytes", "", size), operations=count, live=8,
                 size=size)
        for size, count in ((16, 4000000), (64, 4000000), (256, 4000000), (1024, 4000000),
                            (4096, 2000000), (16384, 1000000), (65536, 500000), (262144, 200000),
                            (1048576, 50000), (4194304, 10000))
    ]
    counts = (1, 2, 4, 8)
    many = [
        workload("pair-%dt" % count, "pair", SWEEP, ("threads", "pair", count),
                 operations=10000000 * count, threads=count, live=1000 * count, size=64)
        for count in counts
    ] + [
        workload("%s-sweep-%dt" % (mode, count), mode, SWEEP, ("threads", mode, count),
                 operations=2000000 * count, threads=count, live=10000 * count, size=16, max=512)
        for mode in ("replace", "remote", "server") for count in counts
    ] + [
        workload("large-sweep-%dt" % count, "replace", SWEEP, ("threads", "large", count),
                 operations=200000 * count, threads=count, live=50 * count, size=140000,
                 max=1000000, touch="none")
        for count in counts
    ]
    return live + sizes + many


def own_workloads():
    return pairs() + bulk() + local() + threads() + sweeps()


def made_up(word):
    """A workload of the user's own: MODE:KEY=VALUE:..."""
    mode, *settings = word.split(":")
    values = dict(setting.partition("=")[::2] for setting in settings if setting)
    return workload(word, mode, (), **{key: int(value) if value.isdigit() else value
                                       for key, value in values.items()})
