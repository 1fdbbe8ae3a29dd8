# SPDX-License-Identifier: MIT
# Copyright (c) the poolmalloc authors
#
# Runs workloads on allocators, in turn and for several rounds, and writes every run down.

import csv
import os
import random
import signal
import subprocess
import sys
import time

from allocators import LIMIT, say, stop
from programs import Program, RunFailed

RUN_SECONDS = 300  # a run that takes longer has hung
LIBC = "libc.so.6"

# Settings of allocators, which a caller's environment may have.
SETTINGS = ("LD_PRELOAD", "GLIBC_TUNABLES", "MALLOC_", "MIMALLOC_", "POOLMALLOC_", "TBB_MALLOC_",
            "TCMALLOC_")

CSV_FIELDS = ["round", "workload", "allocator", "seconds", "cpu", "peak_kib", "minor_faults",
              "major_faults", "operations", "failed", "command"]


def judged(status, printed, complaints):
    """The figures that a run printed, or the reason why they don't count."""
    said = " ".join(complaints.split())[:300]
    if status < 0:
        raise RunFailed(("ended by signal %d (%s) %s" % (
            -status, signal.Signals(-status).name, said)).strip())
    if status != 0:
        raise RunFailed("exit status %d: %s" % (status, said))
    if "cannot be preloaded" in said:
        raise RunFailed(said)
    return dict(word.split("=", 1) for word in printed.split())


def finish(command, environment):
    """Runs the command and returns its printed figures."""
    try:
        done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=RUN_SECONDS,
                              universal_newlines=True, errors="replace")
    except subprocess.TimeoutExpired:
        raise RunFailed("still running after %d seconds" % RUN_SECONDS)
    return judged(done.returncode, done.stdout, done.stderr)


def served_by(allocator, figures):
    """The figures, if the malloc that made them is the one that was asked for."""
    served = os.path.realpath(figures["malloc"])
    if allocator.library and served != os.path.realpath(allocator.library):
        raise RunFailed("malloc came from %s" % served)
    return figures


def preloading(library, environment):
    return dict(environment, LD_PRELOAD=library) if library else environment


class Bench:
    """The built programs, the generated inputs, and one run of a workload on an allocator."""

    def __init__(self, build, scale, folder):
        self.work = os.path.join(build, "bench", "pm-bench-work")
        self.launch = os.path.join(build, "bench", "pm-bench-launch")
        self.scale = scale
        self.folder = folder
        self.commands = {}
        self.environment = {key: value for key, value in os.environ.items()
                            if not key.startswith(SETTINGS)}
        for program in (self.work, self.launch):
            if not os.access(program, os.X_OK):
                stop("%s is not built: run `make bench`, or name the build folder with --build"
                     % program)

    def command(self, task):
        """What a task runs, without its allocator: made once, the same for all of them."""
        if task.name not in self.commands:
            if isinstance(task, Program):
                amount = max(1, int(task.amount * self.scale))
                self.commands[task.name] = task.make(self.folder, amount)
            else:
                settings = dict(task.arguments)
                if isinstance(settings.get("operations"), int):
                    # A sweep over live blocks must reach them, however short.
                    live = task.point and task.point[0] == "live"
                    least = 2 * settings["live"] if live else 1
                    settings["operations"] = max(least, int(settings["operations"] * self.scale))
                self.commands[task.name] = [self.work, task.mode] + [
                    "%s=%s" % pair for pair in settings.items()]
        return self.commands[task.name]

    def try_mode(self, task):
        """Stops with the reason where pm-bench-work does not take the arguments of a task."""
        try:
            finish([self.work, task.mode, "operations=1"] +
                   ["%s=%s" % pair for pair in task.arguments.items() if pair[0] != "operations"],
                   self.environment)
        except RunFailed as failure:
            stop("workload %s: %s" % (task.name, failure))

    def try_allocator(self, allocator):
        """Stops where a library cannot be preloaded or does not bring a malloc."""
        try:
            self.own(allocator, [self.work, "pair", "operations=1"], self.environment)
        except RunFailed as failure:
            stop("%s cannot be measured: %s: %s" % (allocator.name, allocator.library, failure))

    def own(self, allocator, command, environment):
        return served_by(allocator, finish(command, preloading(allocator.library, environment)))

    def run(self, task, allocator):
        command = self.command(task)
        if not isinstance(task, Program):
            environment = self.environment
            if allocator.name == LIMIT:
                environment = dict(environment, PM_BENCH_LIMIT_BLOCK=str(task.arguments["size"]))
                if "threads" in task.arguments:  # 1 too, so that a sweep is of one library
                    allocator = allocator._replace(
                        library=allocator.library.replace(".so", "-threads.so"))
            return self.own(allocator, command, environment)
        environment = dict(self.environment, **task.environment)
        # A program may be linked with an allocator of its own (Debian's redis is, with jemalloc):
        # libc's malloc comes first only if libc does.
        library = allocator.library or LIBC
        if task.run is not None:
            return task.run(command, library, environment, self.folder)
        return finish([self.launch, library] + command, environment)


def serves(allocator, task):
    return allocator.name != LIMIT or (not isinstance(task, Program) and task.limit)


class Progress:
    """One line on a terminal; elsewhere a line at each tenth of the way. The time left is that of
    the same cells in earlier rounds; in the first round, that of the mean cell."""

    def __init__(self, cells, rounds, seconds):
        self.total = len(cells) * rounds
        self.cells = cells
        self.rounds = rounds
        self.spent = {}
        self.done = 0
        self.seconds = seconds
        self.start = time.monotonic()
        self.terminal = sys.stderr.isatty()

    def left(self):
        if not self.spent:
            return None
        usual = (time.monotonic() - self.start) / self.done
        this_round = self.done % len(self.cells)
        whole = sum(self.spent.get(cell, usual) for cell in self.cells)
        begun = sum(self.spent.get(cell, usual) for cell in self.cells[:this_round])
        left = (self.rounds - self.done // len(self.cells)) * whole - begun
        return min(left, max(0, self.seconds - time.monotonic() + self.start)) if self.seconds \
            else left

    def step(self, text):
        """Before each run."""
        if self.terminal or self.done * 10 // self.total != (self.done - 1) * 10 // self.total:
            left = self.left()
            line = "%d of %d runs%s: %s" % (self.done, self.total, "" if left is None else
                                            ", about %d:%02d left" % divmod(round(left), 60), text)
            if self.terminal:
                print("\r\033[Kbench: " + line, file=sys.stderr, end="", flush=True)
            else:
                say(line)
        self.begun = time.monotonic()

    def ran(self, cell):
        self.spent[cell] = time.monotonic() - self.begun
        self.done += 1

    def aloud(self, text):
        """A line that stays."""
        self.close()
        say(text)

    def close(self):
        if self.terminal:
            print("\r\033[K", file=sys.stderr, end="", flush=True)


def shuffled(allocators, turn, number):
    """The order for one workload of one round, the same in each bench: a run may gain, or lose, by the
    pages that the one before it has left to the kernel, so no allocator always follows the same other one."""
    return random.Random(1000 * turn + number).sample(allocators, len(allocators))


def measure(bench, tasks, allocators, rounds, seconds, raw):
    """Interleaved: each workload runs on all allocators before the next, in a shuffled order. No
    round starts that would not end within `seconds` (0: no such end). Returns the runs of each
    cell, what failed and why, and the number of rounds."""
    writer = csv.DictWriter(raw, CSV_FIELDS, extrasaction="ignore")
    writer.writeheader()
    results, failures = {}, {}
    order = [(task, allocator) for task in tasks for allocator in allocators
             if serves(allocator, task)]
    progress = Progress([(task.name, allocator.name) for task, allocator in order],
                        rounds, seconds)
    for turn in range(rounds):
        spent = time.monotonic() - progress.start
        if seconds and turn and spent + spent / turn > seconds:
            progress.aloud("%d rounds fit into %g minutes" % (turn, seconds / 60))
            rounds = turn
            break
        for number, task in enumerate(tasks):
            for allocator in shuffled(allocators, turn, number):
                if not serves(allocator, task):
                    continue
                cell = (task.name, allocator.name)
                progress.step("round %d, %s on %s" % (turn + 1, *cell))
                if cell not in failures:
                    row = dict(round=turn + 1, workload=task.name, allocator=allocator.name,
                               command=" ".join(bench.command(task)))
                    try:
                        row.update(bench.run(task, allocator))
                        results.setdefault(cell, []).append(row)
                    except RunFailed as failure:
                        row["failed"] = failures[cell] = str(failure)
                        progress.aloud("FAILED: %s on %s: %s" % (*cell, failure))
                    writer.writerow(row)
                    raw.flush()
                progress.ran(cell)
    progress.close()
    return {cell: runs for cell, runs in results.items() if cell not in failures}, failures, rounds
