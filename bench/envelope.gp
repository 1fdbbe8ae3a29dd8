# SPDX-License-Identifier: MIT
# Copyright (c) the poolmalloc authors
#
# Two bars for each allocator: time and memory, to the best peer on each workload. pictures.py sets
# data, picture, heading, columns (allocators), colours and ours.

set terminal svg size 860, (130 + 46 * columns) font "sans-serif,13" background "white"
set output picture
set title heading
set key outside bottom center horizontal reverse Left
set style fill solid 1 noborder
set xrange [0:*]
set yrange [columns + 0.6 : 0.4] # the fastest on top
set offsets 0, graph 0.08, 0, 0
set xtics nomirror textcolor rgb "black"
set ytics nomirror scale 0 textcolor rgb "black"
set grid xtics lc rgb "#dddddd" lt 1
set rmargin at screen 0.97
set border 1 lc rgb "#888888"
set arrow from first 1, graph 0 to first 1, graph 1 nohead lc rgb "#444444" lw 1.5 front
half = 0.36

plot data skip 1 using (column(2) / 2):($0 + 1 - half / 2):(column(2) / 2):(half / 2):ytic(1) \
        with boxxyerror lc rgb "#4477aa" title "time", \
    data skip 1 using (column(3) / 2):($0 + 1 + half / 2):(column(3) / 2):(half / 2) \
        with boxxyerror lc rgb "#ccaa44" title "peak resident memory", \
    data skip 1 using 2:($0 + 1 - half / 2):(sprintf("%.2f", column(2))) with labels left offset 0.6, 0 notitle, \
    data skip 1 using 3:($0 + 1 + half / 2):(sprintf("%.2f", column(3))) with labels left offset 0.6, 0 notitle
