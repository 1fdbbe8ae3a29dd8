# SPDX-License-Identifier: MIT
# Copyright (c) the poolmalloc authors
#
# The footprint suite: what is resident at the peak, after the load, and after a rest. Its table of
# workloads and programs, and how they run: most of the time they sleep, so several do it at once.

import concurrent.futures
import csv
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from allocators import say
from measure import (LIBC, RUN_SECONDS, Progress, finish, judged, preloading, served_by,
                     shuffled)
from programs import (REDIS_SOCKET, Program, RunFailed, figures_of, has_mapped, redis_client,
                      redis_server, text_file)
from workloads import Workload

FOOTPRINT = ("footprint",)
QUICK = ("quick", "footprint")
ONLY_QUICK = ("quick",)
TIMED = ("footprint", "timed")
QUICK_TIMED = ("quick", "footprint", "timed")
FOOTPRINT_SETS = ("footprint", "quick", "timed")

MEMORY_OF_A_RUN = 512  # MiB; that many should be there for each of those that run at once
SLEEPERS_A_PROCESSOR = 4

FOOTPRINT_FIELDS = ["round", "kind", "workload", "allocator", "seconds", "cpu", "peak_kib",
                    "after_kib", "idle_kib", "live_kib", "anon_kib", "minor_faults",
                    "major_faults", "failed", "command"]

# ---- the table ----------------------------------------------------------------------------------


def workload(name, mode, sets, **arguments):
    return Workload(name, mode, arguments, sets, None, False)


OWN = [
    workload("phases", "phases", QUICK, keep=10),
    workload("phases-5", "phases", FOOTPRINT, keep=50),
    workload("drift", "drift", FOOTPRINT, operations=100000000),
    workload("drift-10", "drift", ONLY_QUICK, operations=10000000),
    workload("sleepers", "sleepers", QUICK, threads=200, live=300000),
    workload("burst", "burst", QUICK, threads=32, operations=6000000),
    workload("refill-small", "refill", QUICK_TIMED, operations=10, size=16, max=1024),
    workload("refill-large", "refill", TIMED, operations=10, size=4096, max=1048576,
             spread="even"),
]

PYTHON_TEXT = """
import sys
records = [{"id": i, "name": "record %%d" %% i, "tags": ["t%%d" %% (i %% k) for k in (3, 5, 7)],
            "weight": i / 7} for i in range(%d)]
by_name = {record["name"]: record for record in records}
del records, by_name
print("loaded", flush=True)
sys.stdin.read()
"""

PERL_TEXT = """
my %%words = map { ("w$_" => [1 .. 3]) } 1 .. 50;
undef %%words;
open my $file, "<", "/proc/self/status" or die;
while (<$file>) {
    print "peak_kib=$1 " if /^VmHWM:\\s+(\\d+)/;
    print "anon_kib=$1 " if /^RssAnon:\\s+(\\d+)/;
}
"""

# Bytes of a value of the redis workload, from the first on; a key in ten is kept.
REDIS_VALUES = (16, 497)
REDIS_KEPT = 10
REDIS_LOAD = ("redis-fill", "redis-delete")


def make_short(_, amount):
    return ["pm-bench-work", "short", "times=%d" % amount]


def make_perl(folder, amount):
    return ["perl", text_file(folder, "short.pl", PERL_TEXT % ()), "times=%d" % amount]


def make_python(folder, amount):
    return [os.path.realpath(sys.executable), text_file(folder, "job.py", PYTHON_TEXT % amount)]


def make_redis(folder, amount):
    """Requests as redis-cli --pipe takes them. The deletions come in random order."""
    least, more = REDIS_VALUES
    text_file(folder, REDIS_LOAD[0], "".join(
        "SET key:%d %s\r\n" % (i, "v" * (least + i * 7919 % more)) for i in range(amount)))
    gone = [i for i in range(amount) if i * 2654435761 % 2**32 % REDIS_KEPT]
    random.Random(1).shuffle(gone)
    text_file(folder, REDIS_LOAD[1], "".join("DEL key:%d\r\n" % i for i in gone))
    return ["redis-cli", "-s", REDIS_SOCKET, "--pipe"]


# ---- one run ------------------------------------------------------------------------------------

class Children:
    """The processes that run now. Once the bench is interrupted none may start or go on."""

    def __init__(self):
        self.over = threading.Event()
        self.lock = threading.Lock()
        self.running = set()

    def start(self, command, environment, **settings):
        with self.lock:
            if self.over.is_set():
                raise RunFailed("interrupted")
            child = subprocess.Popen(command, env=environment, universal_newlines=True, **settings)
            self.running.add(child)
        return child

    def ended(self, child):
        with self.lock:
            self.running.discard(child)

    def rest(self, seconds):
        if self.over.wait(seconds):
            raise RunFailed("interrupted")

    def end_all(self):
        with self.lock:
            self.over.set()
            for child in self.running:
                child.kill()


class Runner:
    """Runs a workload on an allocator; calls `loaded` when the load has ended and only rest is
    left, so that another can use the processor."""

    def __init__(self, bench, idle):
        self.bench = bench
        self.idle = idle
        self.children = Children()

    def command(self, task):
        command = self.bench.command(task)
        return command if isinstance(task, Program) else command + ["idle=%d" % self.idle]

    def run(self, task, allocator, loaded):
        if isinstance(task, Program):
            environment = dict(self.bench.environment, **task.environment)
            return task.run(self, self.command(task), allocator, environment, loaded)
        return served_by(allocator, self.watched(
            self.command(task), preloading(allocator.library, self.bench.environment), loaded))

    def watched(self, command, environment, loaded, look=None):
        """The figures of a command that prints a line when its load has ended; what `look` makes
        of its process then is added to them."""
        with tempfile.TemporaryFile("w+", errors="replace") as complaints:
            child = self.children.start(command, environment, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=complaints)
            watchdog = threading.Timer(RUN_SECONDS, child.kill)
            watchdog.daemon = True
            watchdog.start()
            begun = time.monotonic()
            seen = {}
            try:
                line = child.stdout.readline()
                if look and line:
                    seen = dict(look(child.pid), seconds="%.6f" % (time.monotonic() - begun))
                loaded()
                if look and line:
                    self.children.rest(self.idle)
                    seen["idle_kib"] = resident(child.pid)["after_kib"]
                child.stdin.close()
                said = ("" if look else line) + child.stdout.read()
                child.wait()
            except OSError as error:  # it ended while it was looked at; its status says more
                said = ""
                child.kill()
                seen["failed"] = str(error)
            finally:
                slow = not watchdog.is_alive()
                watchdog.cancel()
                child.kill()
                child.wait()
                self.children.ended(child)
            if slow:
                raise RunFailed("still running after %d seconds" % RUN_SECONDS)
            complaints.seek(0)
            return dict(judged(child.returncode, said, complaints.read()), **seen)


def lines_of(path):
    with open(path) as file:
        return dict(line.split(":", 1) for line in file if ":" in line)


def resident(pid):
    """Of a process that runs, in KiB; the kernel walks its page tables for it."""
    sizes = lines_of("/proc/%d/smaps_rollup" % pid)
    return {"after_kib": sizes["Rss"].split()[0], "anon_kib": sizes["Anonymous"].split()[0]}


def run_python(runner, command, allocator, environment, loaded):
    library = allocator.library or LIBC

    def look(pid):
        if not has_mapped(pid, library):
            raise RunFailed("python3 did not load %s" % library)
        return dict(figures_of(pid), **resident(pid))
    return runner.watched(command, preloading(library, environment), loaded, look)


def run_redis(runner, command, allocator, environment, loaded):
    """Filled, then emptied but for a tenth. What the server itself counts as used is live."""
    with tempfile.TemporaryDirectory(prefix="redis-", dir=runner.bench.folder) as folder:
        with redis_server(allocator.library or LIBC, environment,
                          os.path.join(folder, "server")) as server:
            folder = os.path.join(folder, "server")
            begun = time.monotonic()
            for requests in REDIS_LOAD:
                said = redis_client(server, command, environment, folder,
                                    os.path.join(runner.bench.folder, requests))
                if "errors: 0," not in said:
                    raise RunFailed("redis-cli: %s" % " ".join(said.split())[-300:])
            seconds = time.monotonic() - begun
            figures = dict(figures_of(server.pid), seconds="%.6f" % seconds,
                           **resident(server.pid))
            loaded()
            runner.children.rest(runner.idle)
            figures["idle_kib"] = resident(server.pid)["after_kib"]
            told = redis_client(server, command[:-1] + ["INFO", "memory"], environment, folder)
            used = next(line for line in told.splitlines() if line.startswith("used_memory:"))
            figures["live_kib"] = str(int(used.split(":")[1]) // 1024)
            return figures


def run_short(runner, command, allocator, environment, _):
    """The same short process over and over: the median of them. It has no time to rest; what
    counts at its end is anonymous memory, as the rest is files that processes share."""
    *words, times = command
    if words[0] == "pm-bench-work":
        words[0] = runner.bench.work
        environment = preloading(allocator.library, environment)
    else:
        environment = preloading(allocator.library or LIBC, environment)
    begun = time.monotonic()
    found = []
    for _ in range(int(times.partition("=")[2])):
        runner.children.rest(0)
        found.append(finish(words, environment))
        if "malloc" in found[-1]:
            served_by(allocator, found[-1])
    medians = {field: "%d" % statistics.median([int(figures[field]) for figures in found])
               for field in ("peak_kib", "anon_kib")}
    return dict(medians, seconds="%.6f" % (time.monotonic() - begun))


PROGRAMS = [
    Program("processes", "short processes: the median of 200 that ask for 50 small blocks",
            {}, make_short, 200, {}, run_short, QUICK),
    Program("processes-perl", "short processes of a real program: the median of 200 runs of perl",
            {"perl": "perl"}, make_perl, 200, {"PERL_HASH_SEED": "0"}, run_short, FOOTPRINT),
    Program("redis", "a server filled with 200,000 values of 16 to 512 bytes; 90 % of the keys "
            "are then deleted, in random order",
            {"redis-server": "redis-server", "redis-cli": "redis-tools"}, make_redis, 200000, {},
            run_redis, FOOTPRINT),
    Program("python3", "an interpreter that asks malloc for every object, after it dropped 200,000 "
            "dictionaries", {sys.executable: "python3"}, make_python, 200000,
            {"PYTHONMALLOC": "malloc", "PYTHONHASHSEED": "0"}, run_python, FOOTPRINT),
]


def footprint_workloads():
    return OWN + PROGRAMS


# ---- all runs -----------------------------------------------------------------------------------

def at_once(processors):
    """How many may be under way: most of them sleep, but each keeps its memory."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20
    return max(1, min(SLEEPERS_A_PROCESSOR * processors, memory // 2 // MEMORY_OF_A_RUN))


class Together(Progress):
    """Several runs at a time: the time left is that of the mean run."""

    def left(self):
        if not self.done:
            return None
        return (time.monotonic() - self.start) / self.done * (self.total - self.done)


def interleaved(tasks, allocators, rounds):
    for turn in range(rounds):
        for number, task in enumerate(tasks):
            for allocator in shuffled(allocators, turn, number):
                yield turn + 1, task, allocator


class Recorder:
    """Every run as a line of raw.csv, and the good ones by cell."""

    def __init__(self, raw):
        self.raw = raw
        self.writer = csv.DictWriter(raw, FOOTPRINT_FIELDS, extrasaction="ignore")
        self.writer.writeheader()
        self.runs, self.failures = {}, {}

    def add(self, cell, row, progress):
        if row.get("failed"):
            if cell not in self.failures:
                progress.aloud("FAILED: %s on %s: %s" % (*cell, row["failed"]))
            self.failures[cell] = row["failed"]
        else:
            self.runs.setdefault(cell, []).append(row)
        self.writer.writerow(row)
        self.raw.flush()


def attempt(runner, task, allocator, loaded, **row):
    row.update(workload=task.name, allocator=allocator.name,
               command=" ".join(runner.command(task)))
    try:
        row.update(runner.run(task, allocator, loaded))
    except RunFailed as failure:
        row["failed"] = str(failure)
    return row


def measure_memory(runner, tasks, allocators, rounds, processors, recorder):
    """A load for each processor; those that rest don't count, up to a number of processes."""
    loads = threading.Semaphore(processors)

    def one(turn, task, allocator):
        loads.acquire()
        under_load = [True]

        def loaded():
            if under_load:
                under_load.pop()
                loads.release()
        try:
            return attempt(runner, task, allocator, loaded, round=turn, kind="memory")
        finally:
            loaded()

    order = list(interleaved(tasks, allocators, rounds))
    progress = Together([(task.name, allocator.name) for _, task, allocator in order], 1, 0)
    pool = concurrent.futures.ThreadPoolExecutor(at_once(processors))
    futures = []
    try:
        futures = [pool.submit(one, *item) for item in order]
        # In their order, so that --again finds it in raw.csv.
        for future, (turn, task, allocator) in zip(futures, order):
            progress.step("round %d, %s on %s" % (turn, task.name, allocator.name))
            recorder.add((task.name, allocator.name), future.result(), progress)
            progress.done += 1
    except BaseException:
        for future in futures:
            future.cancel()
        runner.children.end_all()
        raise
    finally:
        pool.shutdown()
        progress.close()


def measure_time(runner, tasks, allocators, rounds, recorder):
    """One at a time, with nothing beside it, and without the rest."""
    order = list(interleaved(tasks, allocators, rounds))
    progress = Together([(task.name, allocator.name) for _, task, allocator in order], 1, 0)
    try:
        for turn, task, allocator in order:
            cell = (task.name, allocator.name)
            progress.step("time, round %d, %s on %s" % (turn, *cell))
            if cell not in recorder.failures:
                recorder.add(cell, attempt(runner, task, allocator, lambda: None, round=turn,
                                           kind="time"), progress)
            progress.done += 1
    finally:
        runner.children.end_all()
        progress.close()


def measure_footprint(bench, tasks, allocators, rounds, idle, processors, raw):
    """Returns the runs of each cell, and what failed and why. `rounds` are those of memory and of
    time."""
    recorder = Recorder(raw)
    for task in tasks:
        bench.command(task)  # inputs are made before anything runs
    measure_memory(Runner(bench, idle), tasks, allocators, rounds[0], processors, recorder)
    timed = [task for task in tasks if "timed" in task.sets]
    if timed:
        measure_time(Runner(bench, 0), timed, allocators, rounds[1], recorder)
    return ({cell: runs for cell, runs in recorder.runs.items() if cell not in recorder.failures},
            recorder.failures)
