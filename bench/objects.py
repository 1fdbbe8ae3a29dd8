#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: MIT
# Copyright (c) the poolmalloc authors
#
# Measures poolobject beside CPython: times of operations, memory of objects, pauses of collections;
# writes tables and pictures, and holds them against goals. README.md beside it says what the
# figures mean. Needs Python 3.7 and its standard library only; `make bench-objects` calls it with
# the build folder. What is measured is pm-bench-objects, which embeds CPython, not this python3.

import argparse
import csv
import glob
import math
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time

from allocators import Allocator, say, stop
from compare import shown, table
from machine import describe, first_line, output_of
from measure import RUN_SECONDS, Progress
from pictures import can_draw, data_file, gnuplot, word
from programs import RunFailed, text_file

SIDES = OURS, THEIRS = "poolobject", "cpython"
NOISE = 1.2  # a side whose median is so many times its minimum is marked
ROUNDS = 7

AGES = "fresh", "aged"
PAUSE_SIZES = [10**3, 3 * 10**3, 10**4, 3 * 10**4, 10**5, 3 * 10**5, 10**6, 3 * 10**6, 10**7]
PAUSE_BYTES = 200  # resident for each list, at most, on either side
FEW_RUNS = 2       # of the two largest, which take their time
RUNS = 5

FILES = {"time": "objects.csv", "memory": "objects-memory.csv", "pause": "objects-pause.csv"}
FIELDS = {
    "time": ["name", "goal", "count", "round", "side", "ns"],
    "memory": ["name", "goal", "count", "side", "bytes", "text"],
    "pause": ["age", "containers", "side", "run", "ns"],
}


# ---- Running ------------------------------------------------------------------------------------

class Run:
    """One call of the program: its mode, its arguments, and what else its lines are about."""

    def __init__(self, mode, words, settings, **about):
        self.mode = mode
        self.words = [str(word) for word in words]
        self.command = [mode] + self.words + ["%s=%d" % pair for pair in settings.items()]
        self.about = about

    def __str__(self):
        return " ".join([self.mode] + self.words)


def lines_of(program, *words):
    """What a call prints: a line of heads, then values."""
    try:
        done = subprocess.run([program] + list(words), stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=RUN_SECONDS,
                              universal_newlines=True, errors="replace")
    except subprocess.TimeoutExpired:
        raise RunFailed("still running after %d seconds" % RUN_SECONDS)
    if done.returncode != 0:
        raise RunFailed("%s: %s" % (
            "exit status %d" % done.returncode if done.returncode > 0 else
            signal.Signals(-done.returncode).name, " ".join(done.stderr.split())[:300]))
    return list(csv.DictReader(done.stdout.splitlines()))


def available_bytes():
    return int((first_line("/proc/meminfo", "MemAvailable") or "0").split()[0]) * 1024


def pause_sizes(most):
    sizes = [size for size in PAUSE_SIZES if size <= most]
    room = available_bytes()
    for size in sizes:
        if size * PAUSE_BYTES > room:
            say("SKIP: pauses among %d containers: needs %d MiB of memory, there are %d"
                % (size, size * PAUSE_BYTES >> 20, room >> 20))
    return [size for size in sizes if size * PAUSE_BYTES <= room]


def plan(program, options):
    runs = []
    most = {"most": options.most} if options.most else {}
    listed = lines_of(program, "list")
    for row in listed:
        about = {"name": row["name"], "goal": row["goal"],
                 "count": min(int(row["count"]), options.most or sys.maxsize)}
        if row["mode"] == "time":
            runs.append(Run("time", [row["name"]], dict(most, rounds=options.rounds), **about))
        else:
            runs += [Run("memory", [row["name"], side], most, side=side, text=row["text"], **about)
                     for side in SIDES]
    for size in pause_sizes(options.most or math.inf):
        count = FEW_RUNS if size in PAUSE_SIZES[-2:] else RUNS
        runs += [Run("pause", [age, side, size], {"runs": count}, age=age, containers=size,
                     side=side) for age in AGES for side in SIDES]
    return [run for run in runs if run.mode in options.modes.split()]


def measure(program, runs, out):
    """Writes what all runs print, each mode into its file; returns what failed."""
    files = {mode: open(os.path.join(out, FILES[mode]), "w", newline="")
             for mode in dict.fromkeys(run.mode for run in runs)}
    writers = {mode: csv.DictWriter(file, FIELDS[mode]) for mode, file in files.items()}
    for writer in writers.values():
        writer.writeheader()
    failures = []
    progress = Progress([str(run) for run in runs], 1, 0)
    for run in runs:
        progress.step(str(run))
        try:
            writers[run.mode].writerows(
                dict(run.about, **line) for line in lines_of(program, *run.command))
        except RunFailed as failure:
            failures.append(str(run))
            progress.aloud("FAILED: %s: %s" % (run, failure))
        files[run.mode].flush()
        progress.ran(str(run))
    progress.close()
    for file in files.values():
        file.close()
    return failures


# ---- Figures ------------------------------------------------------------------------------------

class Figures:
    """Of one thing, by side. Disturbance only ever adds to a time: the minimum counts."""

    def __init__(self, goal=0.0, text=""):
        self.goal = goal
        self.text = text
        self.values = {side: [] for side in SIDES}

    def least(self, side):
        return min(self.values[side], default=None)

    def median(self, side):
        return statistics.median(self.values[side]) if self.values[side] else None

    def ratio(self):
        mine, other = self.least(OURS), self.least(THEIRS)
        return mine / other if mine is not None and other else None

    def noisy(self):
        return any(values and statistics.median(values) > NOISE * min(values)
                   for values in self.values.values())

    def verdict(self):
        if not self.goal or self.ratio() is None:
            return "-"
        return "met" if self.ratio() <= self.goal else "missed"


def read(out, mode, value, key):
    """The figures of a mode, by what they are about; none where it did not run."""
    path = os.path.join(out, FILES[mode])
    figures = {}
    if os.path.exists(path):
        with open(path, newline="") as file:
            for row in csv.DictReader(file):
                of = figures.setdefault(key(row), Figures(float(row.get("goal") or 0),
                                                          row.get("text", "")))
                of.values[row["side"]].append(float(row[value]))
    return figures


def goal_cells(figures):
    return [shown(figures.ratio()) + ("~" if figures.noisy() else " "),
            shown(figures.goal or None), figures.verdict()]


def time_table(times):
    rows = []
    for name, figures in times.items():
        row = [name]
        for side in SIDES:
            row += [shown(figures.least(side), "%.1f"), shown(figures.median(side), "%.1f")]
        rows.append(row + goal_cells(figures))
    return table(["operation, ns", "poolobject", "median", "CPython", "median", "ratio ", "goal",
                  ""], rows)


def memory_table(memory):
    rows = [[figures.text] + [shown(figures.least(side), "%.1f") for side in SIDES] +
            goal_cells(figures) for figures in memory.values()]
    return table(["private resident bytes of each", "poolobject", "CPython", "ratio ", "goal", ""],
                 rows)


def pause_table(pauses):
    rows = []
    for size in dict.fromkeys(size for _, size in pauses):
        row = ["%d" % size]
        for age in AGES:
            figures = pauses.get((age, size), Figures())
            row += [shown(least and least / 1e6, "%.3f")
                    for least in (figures.least(side) for side in SIDES)]
            row.append(shown(figures.ratio()))
        rows.append(row)
    return table(["containers, ms"] + [head for age in AGES for head in (
        "poolobject, " + age, "CPython, " + age, "ratio")], rows)


# ---- Pictures -----------------------------------------------------------------------------------

def draw(out, times, pauses):
    if not can_draw():
        return
    if times:
        rows = [[name, word(figures.ratio()), word(figures.goal or None)]
                for name, figures in times.items()]
        data = data_file(out, "objects", ["operation", "ratio", "goal"], rows)
        gnuplot(out, "objects.gp", "objects", list(SIDES), kind="time", data=data, rows=len(rows))
    if pauses:
        lines = [(age, side) for side in SIDES for age in AGES]
        rows = []
        for size in dict.fromkeys(size for _, size in pauses):
            leasts = [pauses.get((age, size), Figures()).least(side) for age, side in lines]
            rows.append(["%d" % size] + [word(least and least / 1e6) for least in leasts])
        data = data_file(out, "objects-pause", ["containers"] + [
            side + "-" + age for age, side in lines], rows)
        gnuplot(out, "objects.gp", "objects-pause", list(SIDES), kind="pause", data=data)


def show(out, failures, options):
    times = read(out, "time", "ns", lambda row: row["name"])
    memory = read(out, "memory", "bytes", lambda row: row["name"])
    pauses = read(out, "pause", "ns", lambda row: (row["age"], int(row["containers"])))
    parts = []
    if times:
        parts.append("Time: minimum and median of the rounds, ratio of the minima (~: a median is "
                     "more than %d %% above)\n\n%s" % (round(100 * (NOISE - 1)), time_table(times)))
    if memory:
        parts.append("Memory: growth of private resident bytes\n\n" + memory_table(memory))
    if pauses:
        parts.append("Pause: a full collection of live lists, minimum\n\n" + pause_table(pauses))
    if failures:
        parts.append("FAILED: " + ", ".join(failures))
    text = "\n\n".join(parts) + "\n"
    text_file(out, "objects.txt", text)
    draw(out, times, pauses)
    print(text)
    print("Raw figures, machine, tables and pictures: " + out)
    if options.pictures:
        os.makedirs(options.pictures, exist_ok=True)
        for path in sorted(glob.glob(os.path.join(out, "objects*.svg"))):
            shutil.copy(path, options.pictures)
            print("Picture: " + os.path.join(options.pictures, os.path.basename(path)))


# ---- The whole ----------------------------------------------------------------------------------

def positive(text):
    value = int(text)
    if value <= 0:
        raise argparse.ArgumentTypeError("must be above 0")
    return value


def parse_options():
    parser = argparse.ArgumentParser(
        description="Compares poolobject with CPython; README.md beside it explains the figures.")
    parser.add_argument("--build", default=".", help="the build folder (default: this one)")
    parser.add_argument("--modes", default=" ".join(FILES), metavar="WORDS",
                        help="what to measure (default: %(default)s)")
    parser.add_argument("--rounds", type=positive, default=ROUNDS, metavar="N",
                        help="how often each operation is timed (default: %(default)s)")
    parser.add_argument("--most", type=positive, metavar="N",
                        help="at most so many of everything: to see that it works")
    parser.add_argument("--out", metavar="DIR",
                        help="folder for raw figures, machine, tables and pictures "
                             "(default: bench-results/DATE in the build folder)")
    parser.add_argument("--again", metavar="DIR",
                        help="run nothing: make tables and pictures of DIR again; `latest` is the "
                             "newest in the build folder")
    parser.add_argument("--pictures", metavar="DIR", help="copy the pictures to DIR too")
    options = parser.parse_args()
    for mode in options.modes.split():
        if mode not in FILES:
            parser.error("no mode is called %s; there are %s" % (mode, " ".join(FILES)))
    return options


def latest(build):
    found = [path for name in FILES.values()
             for path in glob.glob(os.path.join(build, "bench-results", "*", name))]
    if not found:
        stop("there are no results in %s: run `make bench-objects` first"
             % os.path.join(build, "bench-results"))
    return max(os.path.dirname(path) for path in found)


def main():
    options = parse_options()
    build = os.path.abspath(options.build)
    if options.again:
        show(latest(build) if options.again == "latest" else options.again, [], options)
        return 0
    program = os.path.join(build, "bench", "pm-bench-objects")
    if not os.access(program, os.X_OK):
        stop("%s is not built: run `make bench-objects`, or name the build folder with --build"
             % program)
    version = dict(line.split(": ", 1) for line in output_of(program, "version").splitlines())
    if THEIRS not in version:
        say("SKIP: poolobject beside CPython: built without python3-embed 3.11 (Debian 12: apt-get "
            "install python3-dev pkg-config, then configure again)")
        return 0
    out = os.path.abspath(options.out or os.path.join(build, "bench-results",
                                                      time.strftime("%Y%m%d-%H%M%S")))
    os.makedirs(out, exist_ok=True)
    libraries = [Allocator(side, version[side + " library"]) for side in SIDES]
    text_file(out, "machine.txt",
              describe(version["compiler"], libraries, options.rounds, 1) +
              "embedded: %s\n" % version[THEIRS])
    failures = measure(program, plan(program, options), out)
    show(out, failures, options)
    return 1 if failures else 0


def interrupted(*_):
    raise KeyboardInterrupt


if __name__ == "__main__":
    # Whatever ends it, what it started ends too.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        say("interrupted")
        sys.exit(130)
    except (OSError, RunFailed) as error:
        stop(str(error))
