#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Copyright (c) the poolmalloc authors
#
# sort with two threads, in memory and through temporary files.

set -eu

seq 1 300000 | awk '{ print ($1 * 7919) % 1000003, "line", $1 }' >lines
LC_ALL=C sort --parallel=2 lines | sha256sum
LC_ALL=C sort --parallel=2 -n -S 1M -T . lines | sha256sum
LC_ALL=C sort --parallel=2 -k3,3nr -u lines | sha256sum
