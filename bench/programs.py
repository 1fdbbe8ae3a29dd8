# SPDX-License-Identifier: MIT
# Copyright (c) the poolmalloc authors
#
# Real programs. Each gets its input generated, by the same steps on every machine.

import contextlib
import csv
import os
import shutil
import subprocess
import sys
import time
from collections import namedtuple

# `needs` are the commands, with the Debian package that has them; `make` writes the input into a
# folder and returns the command; `amount` is scaled with --scale; `run` is None for a program that
# pm-bench-launch starts and times as a whole.
Program = namedtuple("Program", "name isolates needs make amount environment run sets",
                     defaults=(None, ("real", "standard")))

PYTHON_TEXT = """
import json
records = [{"id": i, "name": "record %%d" %% i, "tags": ["t%%d" %% (i %% k) for k in (3, 5, 7)],
            "weight": i / 7} for i in range(%d)]
again = json.loads(json.dumps(records))
by_tag = {}
for record in again:
    for tag in record["tags"]:
        by_tag.setdefault(tag, []).append((record["weight"], record["name"]))
print(sum(len(" ".join(name for _, name in sorted(group))) for group in by_tag.values()))
"""

PERL_TEXT = """
my (%%count, @lines); my $x = 1;
for my $i (1 .. %d) {
    $x = ($x * 1103515245 + 12345) %% 2147483648;
    push @lines, join " ", map { "w" . (($x >> $_) %% 5000) } 1 .. 12;
}
for (@lines) { $count{$_}++ for split / /; }
my %%longest = map { length($_) . $_ => [split //, $_] } keys %%count;
print scalar(keys %%longest), " ", (sort { $a cmp $b } @lines)[0], "\\n";
"""

SQL_TEXT = """
CREATE TABLE item(id INTEGER PRIMARY KEY, name TEXT, shelf INTEGER, price REAL);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d)
    INSERT INTO item SELECT i, 'item ' || (i * 7919 %% 100003), i %% 97, i / 3.0 FROM n;
CREATE INDEX by_name ON item(name);
SELECT shelf, count(*), max(name), sum(price) FROM item GROUP BY shelf ORDER BY 4;
SELECT count(*) FROM item a JOIN item b ON a.name = b.name WHERE a.id < b.id;
DELETE FROM item WHERE id %% 3 = 0;
UPDATE item SET name = name || ' (moved)' WHERE shelf < 30;
SELECT group_concat(name) FROM (SELECT name FROM item ORDER BY price DESC LIMIT 1000);
"""

C_FUNCTION = """
struct node%(i)d { struct node%(i)d *next; int key; double weight[%(n)d]; };
double visit%(i)d(struct node%(i)d *node, int key) {
    double sum = 0;
    for (; node; node = node->next) {
        for (int i = 0; i < %(n)d; i++) {
            if (node->key %% (i + 2) == key) sum += node->weight[i] * %(i)d; else sum -= i;
        }
        switch (node->key) {
        case %(i)d: sum *= 2; break;
        case -1: sum += key; break;
        default: sum++;
        }
    }
    return sum;
}
"""


class RunFailed(Exception):
    """A run that gave no figures; the text says why."""


def text_file(folder, name, text):
    path = os.path.join(folder, name)
    with open(path, "w") as file:
        file.write(text)
    return path


def make_python(folder, amount):
    return [os.path.realpath(sys.executable), text_file(folder, "records.py", PYTHON_TEXT % amount)]


def make_perl(folder, amount):
    return ["perl", text_file(folder, "words.pl", PERL_TEXT % amount)]


def make_sqlite(folder, amount):
    return ["sqlite3", "-init", text_file(folder, "items.sql", SQL_TEXT % amount), ":memory:", ""]


def make_gcc(folder, amount):
    text = "".join(C_FUNCTION % {"i": i, "n": 3 + i % 6} for i in range(amount))
    return ["gcc", "-O2", "-S", "-o", "/dev/null", text_file(folder, "visits.c", text)]


# ---- redis: a server that is measured, and a client that is not ---------------------------------

REDIS_SOCKET = "redis.sock"  # found by the working folder: the path of a socket must be short
REDIS_TESTS = "set,get,lpush,lpop,sadd,hset,spop,zadd"
REDIS_START_SECONDS = 20
REDIS_CLIENT_SECONDS = 300


def make_redis(_, amount):
    return ["redis-benchmark", "-s", REDIS_SOCKET, "-n", str(amount), "-r", "100000", "-P", "16",
            "-c", "20", "-d", "100", "--csv", "-t", REDIS_TESTS]


def redis_answers(folder):
    asked = subprocess.run(["redis-cli", "-s", REDIS_SOCKET, "PING"], cwd=folder,
                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.DEVNULL, universal_newlines=True)
    return asked.stdout.strip() == "PONG"


def figures_of(pid):
    """Of a running process and all its threads, as the kernel accounts them."""
    with open("/proc/%d/status" % pid) as status:
        peak = next(line.split()[1] for line in status if line.startswith("VmHWM:"))
    with open("/proc/%d/stat" % pid) as stat:
        fields = stat.read().rpartition(")")[2].split()  # the first one is number 3 in proc(5)
    minor, major, user, system = (int(fields[number - 3]) for number in (10, 12, 14, 15))
    return {"cpu": "%.6f" % ((user + system) / os.sysconf("SC_CLK_TCK")), "peak_kib": peak,
            "minor_faults": str(minor), "major_faults": str(major)}


def has_mapped(pid, library):
    with open("/proc/%d/maps" % pid) as maps:
        return any(os.path.basename(os.path.realpath(library)) in line for line in maps)


def redis_time(said, amount):
    """The client's own time and the requests it made: it prints requests per second by test."""
    try:
        rates = [float(row["rps"]) for row in csv.DictReader(said.splitlines())]
        return {"seconds": "%.6f" % sum(amount / rate for rate in rates),
                "operations": str(amount * len(rates))}
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        raise RunFailed("redis-benchmark printed no requests per second: %s" % said[:200])


def redis_failed(folder, what):
    with open(os.path.join(folder, "log")) as log:
        return RunFailed("redis-server %s: %s" % (what, " ".join(log.read()[-300:].split())))


@contextlib.contextmanager
def redis_server(library, environment, folder):
    """A server on `library`, without port and files, in a folder that is emptied; ended at last."""
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    with open(os.path.join(folder, "log"), "w") as log:
        server = subprocess.Popen(
            ["redis-server", "--port", "0", "--unixsocket", REDIS_SOCKET, "--save", "",
             "--appendonly", "no", "--daemonize", "no"],
            cwd=folder, env=dict(environment, LD_PRELOAD=library), stdin=subprocess.DEVNULL,
            stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + REDIS_START_SECONDS
        while not redis_answers(folder):
            if server.poll() is not None:
                raise redis_failed(folder, "ended at its start with status %d" % server.returncode)
            if time.monotonic() > deadline:
                raise redis_failed(folder,
                                   "did not answer within %d seconds" % REDIS_START_SECONDS)
            time.sleep(0.02)
        if not has_mapped(server.pid, library):
            raise RunFailed("redis-server did not load %s" % library)
        yield server
    finally:
        server.kill()
        server.wait()


def redis_client(server, command, environment, folder, requests=None):
    """What a client of the server printed; `requests` is a file for its input."""
    with open(requests or os.devnull) as given:
        try:
            client = subprocess.run(command, cwd=folder, env=environment, stdin=given,
                                    stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                    universal_newlines=True, timeout=REDIS_CLIENT_SECONDS)
        except subprocess.TimeoutExpired:
            raise RunFailed("%s was still running after %d seconds"
                            % (command[0], REDIS_CLIENT_SECONDS))
    if server.poll() is not None:
        raise redis_failed(folder, "ended under load with status %d" % server.returncode)
    if client.returncode != 0:
        raise RunFailed("%s exited with %d: %s" % (command[0], client.returncode,
                                                   client.stderr[-300:].strip()))
    return client.stdout


def run_redis(command, library, environment, folder):
    """A fixed number of requests."""
    amount = int(command[command.index("-n") + 1])
    folder = os.path.join(folder, "redis")
    with redis_server(library, environment, folder) as server:
        said = redis_client(server, command, environment, folder)
        return dict(redis_time(said, amount), **figures_of(server.pid))


PROGRAMS = [
    Program("python3", "an interpreter that asks malloc for every object: JSON written, read, and "
            "its records grouped", {sys.executable: "python3"}, make_python, 60000,
            {"PYTHONMALLOC": "malloc", "PYTHONHASHSEED": "0"}),
    Program("perl", "strings, arrays and hashes of another interpreter", {"perl": "perl"},
            make_perl, 40000, {"PERL_HASH_SEED": "0"}),
    Program("sqlite3", "a database in memory: its page cache and many short-lived small blocks",
            {"sqlite3": "sqlite3"}, make_sqlite, 150000, {}),
    Program("gcc", "a compiler (cc1 -O2): a heap that mostly grows", {"gcc": "gcc"}, make_gcc, 150,
            {}),
    Program("redis", "a server under pipelined requests of redis-benchmark: strings, lists, sets, "
            "hashes; the server alone runs on the allocator",
            {"redis-server": "redis-server", "redis-benchmark": "redis-tools",
             "redis-cli": "redis-tools"}, make_redis, 100000, {}, run_redis),
]


def missing(program):
    """What it needs and this machine lacks, in words; "" if all is there."""
    lack = ["%s (Debian: %s)" % need for need in program.needs.items()
            if shutil.which(need[0]) is None]
    return ", ".join(lack)
