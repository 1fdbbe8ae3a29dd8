# SPDX-License-Identifier: MIT
# Copyright (c) the poolmalloc authors
#
# The allocators that are compared, and how their libraries are found.

import os
import platform
import sys
from collections import namedtuple

OURS = "poolmalloc"
LIMIT = "limit"

# A library of "" is the C library's own malloc.
Allocator = namedtuple("Allocator", "name library")

# Names of the shared objects, the newest first, in Debian's and Ubuntu's releases. `deps` knows the
# packages.
KNOWN_PEERS = {
    "jemalloc": ["libjemalloc.so.2"],
    "mimalloc": ["libmimalloc.so.3", "libmimalloc.so.2", "libmimalloc.so.2.0"],
    "tcmalloc": ["libtcmalloc_minimal.so.4"],
    "tbbmalloc": ["libtbbmalloc_proxy.so.2"],
}
DEFAULT_PEERS = "glibc " + " ".join(KNOWN_PEERS)


def say(text):
    print("bench: " + text, file=sys.stderr, flush=True)


def stop(text):
    say(text)
    sys.exit(2)


def system_library(names):
    folders = ["/usr/lib/%s-linux-gnu" % platform.machine(), "/usr/lib64", "/usr/lib",
               "/usr/local/lib"]
    paths = [os.path.join(folder, name) for name in names for folder in folders]
    return next((path for path in paths if os.path.exists(path)), None)


def shared_object(name, path):
    """The absolute path of the library that a user named."""
    if not path:
        stop("PEERS names no file for %s: write %s=/path/lib.so" % (name, name))
    if not os.path.exists(path):
        stop("PEERS says %s=%s, but there is no such file" % (name, path))
    try:
        with open(path, "rb") as file:
            start = file.read(4)
    except OSError as error:
        stop("PEERS says %s=%s, which cannot be read: %s" % (name, path, error.strerror))
    if start != b"\x7fELF":
        stop("PEERS says %s=%s, which is no shared object" % (name, path))
    path = os.path.abspath(path)
    # The loader takes both for the end of a name in LD_PRELOAD.
    if " " in path or ":" in path:
        stop("PEERS says %s=%s: a path with a space or a colon cannot be preloaded" % (name, path))
    return path


def peer(text):
    """The allocator that a word of PEERS means; None where it is not installed."""
    name, given, path = text.partition("=")
    if name in (OURS, LIMIT):
        stop("a peer cannot be called %s" % name)
    if given:
        if not name:
            stop("PEERS says %s: write NAME=/path/lib.so" % text)
        return Allocator(name, shared_object(name, path))
    if name == "glibc":
        return Allocator(name, "")
    if name not in KNOWN_PEERS:
        stop("no peer %s is known; give its path (%s=/path/lib.so) or one of: %s"
             % (name, name, DEFAULT_PEERS))
    library = system_library(KNOWN_PEERS[name])
    if library is None:
        say("SKIP: peer %s is not installed (looked for %s); `make bench-deps` installs it"
            % (name, " or ".join(KNOWN_PEERS[name])))
        return None
    return Allocator(name, library)


def find_peers(*lists):
    """The peers of all lists; a later one of the same name takes the place of an earlier one."""
    chosen = {}
    for word in " ".join(lists).split():
        found = peer(word)
        if found is not None:
            chosen[found.name] = found
    return list(chosen.values())
