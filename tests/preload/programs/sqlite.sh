#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Copyright (c) the poolmalloc authors
#
# sqlite3 in memory: inserts, indexes, joins, text functions, an integrity check.

set -eu

sqlite3 :memory: <<'SQL'
CREATE TABLE a (id INTEGER PRIMARY KEY, word TEXT, amount REAL);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60000)
INSERT INTO a SELECT i, printf('w%x', (i * 7919) % 10007) || substr('xxxxxxxxxxxxxxxxxxxxxxxx', 1, i % 20), i / 3.0 FROM n;
CREATE INDEX by_word ON a (word);
SELECT count(*), count(DISTINCT word), sum(length(word)), round(sum(amount), 2) FROM a;
SELECT word, count(*) FROM a GROUP BY word ORDER BY 2 DESC, 1 LIMIT 5;
SELECT count(*) FROM a x JOIN a y ON x.word = y.word AND x.id < y.id WHERE x.id < 2000;
UPDATE a SET word = upper(word) || hex(id) WHERE id % 3 = 0;
DELETE FROM a WHERE id % 5 = 0;
SELECT length(group_concat(word, ',')) FROM a;
PRAGMA integrity_check;
SQL
