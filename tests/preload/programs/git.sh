#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Copyright (c) the poolmalloc authors
#
# git: commits, branches, merge, repack and fsck; the hashes are printed.

set -eu

export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.org
export GIT_COMMITTER_NAME=c GIT_COMMITTER_EMAIL=c@example.org
export GIT_AUTHOR_DATE='2020-01-01T00:00:00Z' GIT_COMMITTER_DATE='2020-01-01T00:00:00Z'
export GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null HOME=$PWD
git init -q -b main repository
cd repository
for i in $(seq 12); do
    mkdir -p "folder$((i % 3))"
    seq "$i" $((i * 500)) >"folder$((i % 3))/file$i"
    git add .
    git commit -q -m "commit $i"
done
git checkout -q -b side HEAD~4
seq 77 >side
git add side
git commit -q -m side
git merge -q -m merge main
git log --oneline --graph --stat -M | sha256sum
git rev-parse HEAD
git gc -q --aggressive
git fsck --full --strict
git diff HEAD~5 | sha256sum
git grep -c 99 | sha256sum
git blame folder0/file12 | sha256sum
