# SPDX-License-Identifier: MIT
# Copyright (c) the poolmalloc authors
#
# Writes the data of each picture and lets gnuplot draw it, as SVG. An allocator keeps its colour
# and mark in all of them.

import os
import shutil
import subprocess

from allocators import LIMIT, OURS, say
from footprint_report import RESIDENT
from programs import text_file
from workloads import GRAPHS, SWEEP_LINES

HERE = os.path.dirname(os.path.abspath(__file__))

# Distinct in hue and in lightness; ours is drawn largest. (colour, point type of gnuplot)
LOOKS = {
    OURS: ("#cc3311", 7),
    LIMIT: ("#888888", 2),
    "glibc": ("#4477aa", 4),
    "jemalloc": ("#ee7733", 8),
    "mimalloc": ("#228833", 12),
    "tcmalloc": ("#aa3377", 10),
    "tbbmalloc": ("#44aadd", 6),
}
MORE_LOOKS = [("#998822", 14), ("#222255", 5), ("#885533", 9), ("#55bb99", 13), ("#bb77bb", 11)]


def looks(names):
    others = [name for name in names if name not in LOOKS]
    more = {name: MORE_LOOKS[i % len(MORE_LOOKS)] for i, name in enumerate(others)}
    return [LOOKS.get(name) or more[name] for name in names]


def word(value):
    return "NaN" if value is None else "%.5g" % value


def data_file(out, name, heads, rows):
    return text_file(out, name + ".dat", "".join(" ".join(row) + "\n" for row in [heads] + rows))


def gnuplot(out, script, name, names, **settings):
    """One picture; the settings become variables of the script."""
    settings.update(picture=os.path.join(out, name + ".svg"), columns=len(names),
                    names=" ".join(names),
                    colours=" ".join(colour for colour, _ in looks(names)),
                    marks=" ".join(str(mark) for _, mark in looks(names)),
                    ours=names.index(OURS) + 1 if OURS in names else 0)
    text = "; ".join("%s = %s" % (key, value if isinstance(value, (int, float)) else
                                  "'%s'" % value.replace("'", "''"))
                     for key, value in settings.items())
    done = subprocess.run(["gnuplot", "-e", text, os.path.join(HERE, script)],
                          stderr=subprocess.PIPE, universal_newlines=True)
    if done.returncode != 0:
        say("gnuplot could not draw %s: %s" % (name, done.stderr.strip()))


def draw_ratios(out, name, heading, names, tasks, ratio):
    rows = [[task] + [word(ratio(task, allocator)) for allocator in names] for task in tasks]
    data = data_file(out, name, ["workload"] + names, rows)
    gnuplot(out, "ratios.gp", name, names, data=data, heading=heading, rows=len(rows))


def draw_envelope(comparison, out):
    names = sorted(comparison.ranked, key=lambda name: comparison.envelope(name, "seconds") or 0)
    rows = [[name] + [word(comparison.envelope(name, field)) for field in ("seconds", "peak")]
            for name in names]
    data = data_file(out, "envelope", ["allocator", "time", "memory"], rows)
    gnuplot(out, "envelope.gp", "envelope", names, data=data, bars=2,
            titles="time|peak resident memory",
            heading="Geometric mean over %d workloads, to the best peer on each"
            % len(comparison.complete))


def draw_sweep(comparison, out, graph):
    """A line without any figure (all failed) draws nothing."""
    lines = comparison.graphs[graph]
    names = [name for name in comparison.names if any(
        (task, name) in comparison.cells for points in lines.values() for _, task in points)]
    titles, all_costs = [], []
    for number, (line, points) in enumerate(lines.items(), 1):
        costs = [dict(comparison.line_costs(graph, line, name)) for name in names]
        data_file(out, "sweep-%s-%d" % (graph, number), ["x"] + names,
                  [["%d" % x] + [word(cost[x]) for cost in costs] for x, _ in sorted(points)])
        all_costs += [value for cost in costs for value in cost.values() if value]
        titles.append(SWEEP_LINES[line] if line else GRAPHS[graph].title)
    gnuplot(out, "sweep.gp", "sweep-" + graph, names, axis=GRAPHS[graph].axis,
            data=os.path.join(out, "sweep-%s-" % graph), titles="|".join(titles),
            panels=len(titles), binary=int(graph != "live"), low=min(all_costs) * 0.8,
            high=max(all_costs) * 1.25)


def can_draw():
    if shutil.which("gnuplot") is None:
        say("SKIP: pictures: gnuplot is not installed (Debian: gnuplot-nox)")
        return False
    return True


def draw_footprint(comparison, out):
    if not can_draw():
        return
    live = [task for task in comparison.tasks if comparison.live(task)]
    if live:
        draw_ratios(out, "footprint-live", "Resident when idle, over live bytes",
                    comparison.ranked, live, comparison.over_live)
    if comparison.resting():
        names = sorted(comparison.ranked, key=lambda name: comparison.envelope(name, "idle"))
        rows = [[name] + [word(comparison.envelope(name, field)) for field in RESIDENT]
                for name in names]
        data = data_file(out, "footprint", ["allocator"] + list(RESIDENT), rows)
        gnuplot(out, "envelope.gp", "footprint", names, data=data, bars=len(RESIDENT),
                titles="|".join(RESIDENT.values()),
                heading="Resident memory to the leanest peer's: geometric mean over %d workloads "
                "(idle: %d)" % (len(comparison.complete), len(comparison.resting())))


def draw(comparison, out):
    if not can_draw():
        return
    tasks = comparison.tasks
    if tasks:
        for field, name, heading in (
                ("seconds", "time", "Time over the fastest peer's"),
                ("peak", "memory", "Peak resident memory over the leanest peer's")):
            draw_ratios(out, name, heading, comparison.ranked, tasks,
                        lambda task, allocator: comparison.ratio(task, allocator, field))
    floors = [task for task in tasks if (task, LIMIT) in comparison.cells]
    if floors:
        draw_ratios(out, "limit", "Time over that of a bare list without any check or lock",
                    comparison.ranked, floors, comparison.over_limit)
    if comparison.complete:
        draw_envelope(comparison, out)
    for graph in comparison.graphs:
        draw_sweep(comparison, out, graph)
