#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Copyright (c) the poolmalloc authors
#
# perl: hashes, strings, regular expressions, sorting.

set -eu

perl -e '
use strict; use warnings;
my ($state, %count, @lines) = (42);
for my $i (1 .. 60000) {
    $state = ($state * 1103515245 + 12345) % 2147483648;
    my $word = sprintf "w%x", $state >> 16;
    $count{$word}++;
    push @lines, "$i:$word:" . ("x" x ($state % 200)) if $i % 7 == 0;
}
my $total = 0;
$total += $count{$_} * length for sort keys %count;
my $matched = grep { /^\d+:w[0-9a-f]*[a-f]:x+$/ } @lines;
my $text = join ",", sort { length $a <=> length $b || $a cmp $b } @lines;
(my $replaced = $text) =~ s/x{50,}/<long>/g;
print "$total $matched ", length $text, " ", length $replaced, " ", unpack("%32C*", $replaced), "\n";
my $tree = [];
for my $i (1 .. 50000) { $tree = [$tree, $i] if $i % 100; $tree = [] unless $i % 100; }
print scalar @$tree, "\n";
'
