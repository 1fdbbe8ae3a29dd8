#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Copyright (c) the poolmalloc authors
#
# redis.sh [SECONDS]: starts a redis-server on a free port of the loopback interface, without
# persistence, writes known values, puts redis-benchmark's load on it for at least that long, and
# looks whether anything was lost. It and all that it starts run on the preloaded allocator, if
# there is one.

set -eu

seconds=${1:-0}
keys=3000
increments=5000
directory=$(mktemp -d)
server=

finish() {
    if [ -n "$server" ]; then
        kill -KILL "$server" 2>/dev/null || true
    fi
    rm -rf "$directory"
}
trap finish EXIT

client() {
    redis-cli -h 127.0.0.1 -p "$port" "$@"
}

# The port is free when the server that we started answers on it; else it has ended, and we try
# another.
start_server() {
    for _ in $(seq 20); do
        port=$((20000 + RANDOM % 30000))
        redis-server --bind 127.0.0.1 --port "$port" --save '' --appendonly no --dir "$directory" \
            --lazyfree-lazy-user-del yes --hz 50 >"$directory/log" 2>"$directory/errors" &
        server=$!
        for _ in $(seq 200); do
            if ! kill -0 "$server" 2>/dev/null; then
                break
            fi
            if client INFO server 2>/dev/null | tr -d '\r' | grep -qx "process_id:$server"; then
                return 0
            fi
        done
        kill -KILL "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
        server=
    done
    cat "$directory/log" "$directory/errors" >&2
    echo "redis.sh: no server started on any of 20 ports" >&2
    return 1
}

start_server

client EVAL "for i = 1, $keys do
    redis.call('SET', 'known:' .. i, string.rep(tostring(i), i % 500))
    redis.call('HSET', 'known:hash', i, string.rep('h', i % 300))
    redis.call('RPUSH', 'known:list', i)
    redis.call('ZADD', 'known:sorted', i, 'member' .. i)
end return 'filled'" 0

counted=0
while :; do
    redis-benchmark -h 127.0.0.1 -p "$port" -q -c 20 -P 4 -n 4000 -r 3000 -d 200 \
        -t set,get,incr,lpush,rpush,lpop,rpop,sadd,hset,spop,zadd,zpopmin,lrange_100,mset >/dev/null
    redis-benchmark -h 127.0.0.1 -p "$port" -q -c 20 -P 4 -n 2000 -r 3000 -d 30000 -t set,get \
        >/dev/null
    redis-benchmark -h 127.0.0.1 -p "$port" -q -c 20 -n "$increments" INCR known:counter >/dev/null
    counted=$((counted + increments))
    client DEL mylist myset myhash myzset >/dev/null
    if [ "$SECONDS" -ge "$seconds" ]; then
        break
    fi
done

echo "counter off by $(($(client GET known:counter) - counted))"
client EVAL "local lost = 0
for i = 1, $keys do
    if redis.call('GET', 'known:' .. i) ~= string.rep(tostring(i), i % 500) then lost = lost + 1 end
    if redis.call('HGET', 'known:hash', i) ~= string.rep('h', i % 300) then lost = lost + 1 end
    if redis.call('LINDEX', 'known:list', i - 1) ~= tostring(i) then lost = lost + 1 end
    if redis.call('ZSCORE', 'known:sorted', 'member' .. i) ~= tostring(i) then lost = lost + 1 end
end return 'lost ' .. lost" 0
# Nothing is there but what was written: the known keys, and redis-benchmark's own.
echo "known keys $(client --scan --pattern 'known:*' | wc -l)"
others=$(client --scan | grep -vc '^known:' || true)
echo "not counted $(($(client DBSIZE) - others - keys - 4))"

client FLUSHALL >/dev/null
client SHUTDOWN NOSAVE
wait "$server"
server=
cat "$directory/errors" >&2
