#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Copyright (c) the poolmalloc authors
#
# node: objects, strings, buffers, JSON, worker threads.

set -eu

cat >work.js <<'JS'
const { Worker, isMainThread, parentPort, workerData } = require('worker_threads');
const crypto = require('crypto');
const zlib = require('zlib');
function work(seed) {
    let state = seed;
    const words = {};
    for (let i = 0; i < 30000; i++) {
        state = (Math.imul(state, 1103515245) + 12345) >>> 0;
        const word = 'w' + (state >>> 17).toString(36);
        words[word] = (words[word] || 0) + 1;
    }
    const text = JSON.stringify(Object.entries(words).sort());
    const buffers = [];
    for (let i = 0; i < 200; i++) buffers.push(Buffer.alloc(i * 97, i));
    const packed = zlib.deflateSync(Buffer.concat([Buffer.from(text), ...buffers]));
    return crypto.createHash('sha256').update(zlib.inflateSync(packed)).digest('hex');
}
if (isMainThread) {
    const results = [];
    for (let i = 0; i < 4; i++) {
        const worker = new Worker(__filename, { workerData: i + 1 });
        worker.on('message', (m) => {
            results.push(m);
            if (results.length === 4) console.log(results.sort().join('\n'), work(9));
        });
    }
} else {
    parentPort.postMessage(workerData + ' ' + work(workerData));
}
JS
node work.js
