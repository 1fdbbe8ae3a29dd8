# SPDX-License-Identifier: MIT
# Copyright (c) the poolmalloc authors
#
# The description of the machine and the libraries that lies beside the figures.

import hashlib
import os
import platform
import subprocess
import time


def first_line(path, key=None):
    """The file's first line, or the value of its first line `key: value`."""
    try:
        with open(path) as file:
            for line in file:
                if key is None:
                    return line.strip()
                if line.startswith(key):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return None


def output_of(*command):
    try:
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                              universal_newlines=True).stdout.strip()
    except OSError:
        return ""


def library_version(path):
    real = os.path.realpath(path)
    with open(real, "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()[:16]
    package = output_of("dpkg", "-S", real) or output_of("dpkg", "-S", path)
    package = package.partition(": ")[0].split(",")[0]
    version = ""
    if package:
        version = output_of("dpkg-query", "-W", "-f", "${Package} ${Version}", package)
    return "%s  %s  sha256 %s" % (real, version or "no package", digest)


def processors():
    return len(os.sched_getaffinity(0))


def describe(compiler, allocators, rounds, scale):
    size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20
    lscpu = dict(line.split(":", 1) for line in output_of("lscpu").splitlines() if ":" in line)
    lines = [
        ("date", time.strftime("%Y-%m-%d %H:%M:%S %z")),
        ("processor", first_line("/proc/cpuinfo", "model name")
         or lscpu.get("Model name", platform.machine()).strip()),
        ("processors", str(processors())),
        ("memory", "%d MiB" % size),
        ("page size", str(os.sysconf("SC_PAGE_SIZE"))),
        ("kernel", "%s %s" % (platform.release(), platform.machine())),
        ("huge pages", first_line("/sys/kernel/mm/transparent_hugepage/enabled")),
        ("governor", first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
        ("load before", "%.2f" % os.getloadavg()[0]),
        ("C library", os.confstr("CS_GNU_LIBC_VERSION")),
        ("compiler of the workloads", compiler),
        ("rounds asked for", str(rounds)),
        ("scale", str(scale)),
    ] + [(a.name, library_version(a.library)) for a in allocators if a.library]
    return "".join("%s: %s\n" % (name, value or "unknown") for name, value in lines)
