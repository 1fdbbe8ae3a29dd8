# SPDX-License-Identifier: MIT
# Copyright (c) the poolmalloc authors
#
# From the runs of the footprint suite to figures and tables. README.md says what they mean.

import statistics

from allocators import OURS
from compare import Comparison, mean, shown, table

MEMORY = {
    "peak": "Peak resident memory",
    "after": "Resident right after the load",
    "idle": "Resident after %s seconds without a call of the allocator",
    "end": "Anonymous memory of short processes at their end",
}
RESIDENT = {"peak": "peak", "after": "after the load", "idle": "idle"}
HEADS = list(RESIDENT.values()) + ["short processes"]


class FootprintCell:
    """Medians of the memory runs, in KiB, and the shortest of the time runs; None for what no run
    has."""

    def __init__(self, runs):
        def column(kind, name):
            return [float(run[name]) for run in runs if run["kind"] == kind and run.get(name)]

        def median(name):
            found = column("memory", name)
            return statistics.median(found) if found else None
        self.peak, self.after, self.idle, self.live = (
            median(name + "_kib") for name in ("peak", "after", "idle", "live"))
        # What a process shares with others of its kind is in its peak; what it ends with is its
        # own.
        self.end = median("anon_kib") if self.idle is None else None
        self.seconds = min(column("time", "seconds"), default=None)
        self.spread = 0


class FootprintComparison(Comparison):
    """Ratios to the leanest peer, as those of time are to the fastest; and to the live bytes."""

    def __init__(self, runs, tasks, names, processors):
        super().__init__(runs, tasks, names, processors, FootprintCell)

    def live(self, task):
        """Threads can differ by a block, and redis counts what blocks are rounded up to: the least
        that any allocator had to hold counts for all."""
        counts = [cell.live for (name, _), cell in self.cells.items() if name == task and cell.live]
        return min(counts, default=None)

    def over_live(self, task, name):
        cell, live = self.cells.get((task, name)), self.live(task)
        return cell.idle / live if cell and cell.idle and live else None

    def over_live_mean(self, name):
        ratios = [self.over_live(task, name) for task in self.complete]
        return mean([ratio for ratio in ratios if ratio])

    def resting(self):
        return [task for task in self.complete if self.best(task, "idle")]

    def timed(self):
        return [task for task in self.tasks if self.best(task, "seconds")]


def mib(kib):
    if kib is None:
        return "-"
    return "%.2f" % (kib / 1024) if kib < 10 * 1024 else "%.1f" % (kib / 1024)


def memory_table(comparison, field):
    rows = []
    for task in comparison.tasks:
        row = [task]
        for name in comparison.ranked:
            cell = comparison.cells.get((task, name))
            row.append("%s  %5s" % (mib(cell and getattr(cell, field)),
                                    shown(comparison.ratio(task, name, field))))
        if any(cell.strip(" -") for cell in row[1:]):
            rows.append(row)
    return table(["workload"] + comparison.ranked, rows) if rows else ""


def live_table(comparison):
    rows = [[task, mib(comparison.live(task))] +
            [shown(comparison.over_live(task, name)) for name in comparison.ranked]
            for task in comparison.tasks if comparison.live(task)]
    return table(["workload", "live, MiB"] + comparison.ranked, rows) if rows else ""


def time_table(comparison):
    rows = [[task, shown(comparison.best(task, "seconds") * 1e3, "%.0f")] +
            [shown(comparison.ratio(task, name, "seconds")) for name in comparison.ranked]
            for task in comparison.timed()]
    return table(["workload", "best peer, ms"] + comparison.ranked, rows)


def summary_table(comparison):
    rows = []
    for name in comparison.ranked:
        worst, where = comparison.worst(name, "idle")
        rows.append([name] + [shown(comparison.envelope(name, field)) for field in MEMORY]
                    + [shown(comparison.over_live_mean(name)),
                       shown(comparison.envelope(name, "seconds")),
                       "%s  %s" % (shown(worst), where) if worst else "-"])
    return table(["allocator"] + HEADS + ["idle over live", "refill time", "worst idle"], rows)


def against_table(comparison):
    rows = []
    for other in comparison.peers:
        count = sum(comparison.cells[task, OURS].idle < comparison.cells[task, other].idle
                    for task in comparison.resting())
        rows.append([other] + [shown(comparison.against(OURS, other, field)) for field in MEMORY]
                    + ["%d of %d" % (count, len(comparison.resting()))])
    return table([OURS + " over"] + HEADS + ["leaner when idle"], rows)


def footprint_report(comparison, failures, idle):
    parts = []
    for field, title in MEMORY.items():
        title = title % idle if "%s" in title else title
        text = memory_table(comparison, field)
        if text:
            parts.append("%s: MiB, and over the leanest peer's\n%s" % (title, text))
    live = live_table(comparison)
    if live:
        parts.append("Resident when idle over live bytes (1 would be nothing but what the program "
                     "holds)\n" + live)
    if comparison.timed():
        parts.append("Time to fill and empty, over the fastest peer's (minimum)\n"
                     + time_table(comparison))
    if comparison.complete:
        parts.append("Envelope: geometric mean of the ratios to the leanest (or fastest) peer; "
                     "over %d workloads for the peak, %d that rest\n"
                     % (len(comparison.complete), len(comparison.resting()))
                     + summary_table(comparison))
    if comparison.complete and OURS in comparison.names:
        parts.append("Geometric mean against each peer\n" + against_table(comparison))
    for (task, name), reason in sorted(failures.items()):
        parts.append("FAILED: %s on %s: %s" % (task, name, reason))
    return "\n\n".join(parts) + "\n"
