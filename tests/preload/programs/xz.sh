#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Copyright (c) the poolmalloc authors
#
# xz with two threads, there and back.

set -eu

seq 1 400000 >numbers
xz -T2 --block-size=512KiB -k numbers
xz -t numbers.xz
xz -dc -T2 numbers.xz | cmp - numbers
sha256sum numbers.xz
