#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Copyright (c) the poolmalloc authors
#
# python3 with threads, dictionaries, json, re and sorting; its answers are printed.

set -eu

python3 - <<'PYTHON'
import collections, hashlib, json, re, sys, threading, zlib

def work(seed, results):
    state, words = seed, []
    for _ in range(20000):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        words.append('w%x' % (state >> 44))
    counts = collections.Counter(words)
    text = json.dumps({'counts': counts, 'words': words[:5000]}, sort_keys=True)
    back = json.loads(text)
    assert back['counts'] == dict(counts)
    found = re.findall(r'w[0-9a-f]*([a-f])\b', ' '.join(words))
    joined = ''.join(sorted(found)) + text
    results[seed] = hashlib.sha256(zlib.compress(joined.encode())).hexdigest()

results = {}
for batch in range(3):
    threads = [threading.Thread(target=work, args=(batch * 4 + i, results)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
for seed in sorted(results):
    print(seed, results[seed])

class Node:
    def __init__(self, left, right):
        self.left, self.right, self.me = left, right, self

def tree(depth):
    return Node(tree(depth - 1), tree(depth - 1)) if depth else Node(None, None)

def count(node):
    return 1 + count(node.left) + count(node.right) if node.left else 1

print(sum(count(tree(10)) for _ in range(20)))
data = bytearray()
for i in range(300):
    data += bytes([i % 256]) * (i * 37)
print(hashlib.sha256(data).hexdigest(), (3 ** 40000).bit_length())
PYTHON
