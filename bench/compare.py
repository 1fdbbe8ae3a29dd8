# SPDX-License-Identifier: MIT
# Copyright (c) the poolmalloc authors
#
# From runs to figures, and from figures to tables. README.md says what they mean.

import csv
import math
import statistics

from allocators import LIMIT, OURS
from workloads import GRAPHS, NOT_IN_MEANS, SWEEP_LINES

NOISE = 0.20  # a cell whose runs spread wider is marked
FEW_FAULTS = 256  # added to both sides of a ratio, as 3 faults against 6 say nothing


class Cell:
    """All runs of one workload on one allocator. Disturbance only ever adds time, so the minimum
    stands for it; memory can go either way, so its median does."""

    def __init__(self, runs):
        def column(name):
            return [float(run[name]) for run in runs]
        seconds = column("seconds")
        self.seconds = min(seconds)
        self.median = statistics.median(seconds)
        self.spread = max(seconds) / self.seconds - 1 if self.seconds else 0
        self.cpu = min(column("cpu"))
        self.peak = statistics.median(column("peak_kib"))
        self.faults = statistics.median(
            [minor + major for minor, major in zip(column("minor_faults"), column("major_faults"))])
        self.faults_and_few = self.faults + FEW_FAULTS
        self.operations = int(runs[0].get("operations") or 0)


def read_raw(path):
    """What measure() wrote, as it returned it: runs of each cell, failures, rounds."""
    runs, failures, rounds = {}, {}, 0
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            cell = (row["workload"], row["allocator"])
            rounds = max(rounds, int(row["round"]))
            if row["failed"]:
                failures[cell] = row["failed"]
            else:
                runs.setdefault(cell, []).append(row)
    return {cell: found for cell, found in runs.items() if cell not in failures}, failures, rounds


def mean(ratios):
    if not ratios:
        return None
    return math.exp(math.fsum(math.log(ratio) for ratio in ratios) / len(ratios))


class Comparison:
    """Ratios to the best peer on each workload. Neither we nor the limit row set that mark, so an
    allocator that is best everywhere stands at 1 if it is a peer, and below 1 if it is ours."""

    def __init__(self, runs, tasks, names, processors, cell_of=Cell):
        self.cells = {cell: cell_of(found) for cell, found in runs.items()}
        self.processors = processors
        self.names = [name for name in names if name != LIMIT or any(
            name == limit for _, limit in self.cells)]
        self.peers = [name for name in self.names if name not in (OURS, LIMIT)]
        self.ranked = [name for name in self.names if name != LIMIT]
        points = {task.name: task.point for task in tasks if getattr(task, "point", None)}
        self.tasks = [task.name for task in tasks if task.name not in points]
        # Means are taken over the same workloads for everybody.
        self.complete = [task.name for task in tasks if task.sets not in NOT_IN_MEANS
                         and all((task.name, name) in self.cells for name in self.ranked)]
        self.programs = [task.name for task in tasks if task.name in self.complete
                         and "real" in task.sets]
        self.graphs = {}  # graph -> line -> [(x, name of the workload)]
        for task, (graph, line, x) in points.items():
            self.graphs.setdefault(graph, {}).setdefault(line, []).append((x, task))

    def best(self, task, field):
        values = [getattr(self.cells[task, name], field) for name in self.peers
                  if (task, name) in self.cells]
        return min((value for value in values if value is not None), default=None)

    def ratio(self, task, name, field):
        cell = self.cells.get((task, name))
        best = self.best(task, field)
        return getattr(cell, field) / best if cell and best and getattr(cell, field) else None

    def over_limit(self, task, name):
        floor, cell = self.cells.get((task, LIMIT)), self.cells.get((task, name))
        return cell.seconds / floor.seconds if cell and floor and floor.seconds else None

    def envelope(self, name, field, tasks=None):
        ratios = [self.ratio(task, name, field)
                  for task in (self.complete if tasks is None else tasks)]
        return mean([ratio for ratio in ratios if ratio])

    def against(self, name, other, field):
        pairs = [(getattr(self.cells[task, name], field), getattr(self.cells[task, other], field))
                 for task in self.complete]
        return mean([mine / theirs for mine, theirs in pairs if mine and theirs])

    def worst(self, name, field):
        return max(((self.ratio(task, name, field) or 0, task) for task in self.complete),
                   default=(None, ""))

    def cost(self, task, name, threads=1):
        """Nanoseconds of a processor for an operation; without loss the same for all counts of
        threads."""
        cell = self.cells.get((task, name))
        if cell is None or not cell.operations:
            return None
        return cell.seconds * min(threads, self.processors) / cell.operations * 1e9

    def line_costs(self, graph, line, name):
        """[(x, cost)] of one allocator on one line of a sweep."""
        return [(x, self.cost(task, name, x if graph == "threads" else 1))
                for x, task in sorted(self.graphs[graph][line])]

    def growth(self, graph, line, name):
        costs = dict(self.line_costs(graph, line, name))
        low, high = GRAPHS[graph].growth or (None, None)
        return costs[high] / costs[low] if costs.get(low) and costs.get(high) else None


def table(heads, rows):
    """The first column leans left, the others right."""
    lines = [heads] + rows
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
    text = []
    for line in lines:
        cells = [line[0].ljust(widths[0])] + [c.rjust(w) for c, w in zip(line[1:], widths[1:])]
        text.append("  ".join(cells).rstrip())
    text.insert(1, "-" * max(len(line) for line in text))
    return "\n".join(text)


def shown(value, pattern="%.2f"):
    return "-" if value is None else pattern % value


def ratio_table(comparison, field, unit, scale):
    rows = []
    for task in comparison.tasks:
        best = comparison.best(task, field)
        row = [task, shown(best and best * scale, "%.1f")]
        for name in comparison.ranked:
            cell = comparison.cells.get((task, name))
            noisy = field == "seconds" and cell is not None and cell.spread > NOISE
            row.append(shown(comparison.ratio(task, name, field)) + ("~" if noisy else " "))
        rows.append(row)
    return table(["workload", "best peer, " + unit] + [n + " " for n in comparison.ranked], rows)


def summary_table(comparison):
    rows = []
    for name in comparison.ranked:
        worst, where = comparison.worst(name, "seconds")
        rows.append([name] + [shown(comparison.envelope(name, field))
                              for field in ("seconds", "median", "cpu", "peak", "faults_and_few")]
                    + [shown(comparison.envelope(name, "seconds", comparison.programs)),
                       "%s  %s" % (shown(worst), where)])
    return table(["allocator", "time", "median time", "CPU time", "peak memory", "page faults",
                  "real programs, time", "worst time"], rows)


def against_table(comparison):
    rows = []
    for other in comparison.peers:
        faster = sum(comparison.cells[task, OURS].seconds < comparison.cells[task, other].seconds
                     for task in comparison.complete)
        rows.append([other] + [shown(comparison.against(OURS, other, field))
                               for field in ("seconds", "cpu", "peak")]
                    + ["%d of %d" % (faster, len(comparison.complete))])
    return table([OURS + " over", "time", "CPU time", "peak memory", "faster on"], rows)


def limit_table(comparison):
    """Cost of an operation over the floor."""
    rows = [[task, shown(comparison.cost(task, LIMIT))] +
            [shown(comparison.over_limit(task, name)) for name in comparison.ranked]
            for task in comparison.tasks if (task, LIMIT) in comparison.cells]
    return table(["workload", "limit, ns"] + comparison.ranked, rows)


def sweep_table(comparison, graph, line):
    costs = {name: comparison.line_costs(graph, line, name) for name in comparison.names}
    names = [name for name in comparison.names if any(cost for _, cost in costs[name])]
    rows = [["%d" % x] + [shown(costs[name][i][1], "%.1f") for name in names]
            for i, (x, _) in enumerate(sorted(comparison.graphs[graph][line]))]
    growths = {name: comparison.growth(graph, line, name) for name in names}
    if any(growths.values()):
        low, high = GRAPHS[graph].growth
        rows.append(["%d over %d" % (high, low)] + [shown(growths[name]) for name in names])
        if growths.get(LIMIT):
            rows.append(["over the limit's"] + [
                shown(growths[name] and growths[name] / growths[LIMIT]) for name in names])
    return table([GRAPHS[graph].axis] + names, rows)


def detail_table(comparison):
    rows = []
    for (task, name), cell in comparison.cells.items():
        rows.append([task, name, "%.1f" % (cell.seconds * 1e3), "%.1f" % (cell.median * 1e3),
                     "%.0f %%" % (cell.spread * 100), "%.1f" % (cell.cpu * 1e3),
                     "%.0f" % cell.peak, "%.0f" % cell.faults])
    return table(["workload", "allocator", "min ms", "median ms", "spread", "CPU ms", "peak KiB",
                  "faults"], rows)


def report(comparison, failures, rounds):
    parts = []
    if comparison.tasks:
        parts += ["Time over the fastest peer's (minimum of %d rounds; ~ spread above %.0f %%)\n%s"
                  % (rounds, NOISE * 100, ratio_table(comparison, "seconds", "ms", 1e3)),
                  "Peak resident memory over the leanest peer's (median)\n"
                  + ratio_table(comparison, "peak", "MiB", 1 / 1024)]
    if any((task, LIMIT) in comparison.cells for task in comparison.tasks):
        parts.append("Time over the limit's: a bare list behind two calls, with nothing else\n"
                     + limit_table(comparison))
    for graph, lines in comparison.graphs.items():
        for line in lines:
            parts.append("%s%s: ns of a processor for an operation\n%s" % (
                GRAPHS[graph].title, ": " + SWEEP_LINES[line] if line else "",
                sweep_table(comparison, graph, line)))
    if comparison.complete:
        parts.append("Envelope: geometric mean of the ratios to the best peer, over %d workloads\n"
                     % len(comparison.complete) + summary_table(comparison))
    if comparison.complete and OURS in comparison.names:
        parts.append("Geometric mean against each peer\n" + against_table(comparison))
    for (task, name), reason in sorted(failures.items()):
        parts.append("FAILED: %s on %s: %s" % (task, name, reason))
    return "\n\n".join(parts) + "\n"
