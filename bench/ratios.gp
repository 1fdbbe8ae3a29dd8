# SPDX-License-Identifier: MIT
# Copyright (c) the poolmalloc authors
#
# One picture of ratios: a line for each workload, a point for each allocator. pictures.py sets
# data, picture, heading, columns (allocators), rows (workloads), colours, marks and ours.

set terminal svg size 860, (120 + 22 * rows) font "sans-serif,13" background "white"
set output picture
set title heading
set key outside bottom center horizontal reverse Left
set rmargin at screen 0.97
set logscale x 2
set autoscale xfix
set offsets graph 0.03, graph 0.03, 0, 0
set xtics nomirror ("0.25" 0.25, "0.5" 0.5, "0.7" 0.7, "1" 1, "1.5" 1.5, "2" 2, "3" 3, \
    "4" 4, "5" 5, "7" 7, "10" 10, "15" 15, "20" 20, "30" 30, "50" 50, "100" 100) textcolor rgb "black"
set grid xtics ytics lc rgb "#dddddd" lt 1
set border 3 lc rgb "#888888"
set yrange [rows + 0.5 : 0.5] # the first workload on top
set ytics nomirror textcolor rgb "black"
set arrow from first 1, graph 0 to first 1, graph 1 nohead lc rgb "#444444" lw 1.5

# Ours is drawn last, above the others, and largest.
at(i) = ours == 0 ? i : i == columns ? ours : i < ours ? i : i + 1
# Points that lie on the mark keep it within the picture.
plot data skip 1 using (1):($0 + 1) with points pt 0 lc rgb "#444444" notitle, \
    for [i = 1:columns] data using (column(at(i) + 1)):($0 + 1):ytic(1) \
        title columnheader(at(i) + 1) with points lw 1.5 ps (at(i) == ours ? 1.2 : 1.0) \
        pt (word(marks, at(i)) + 0) lc rgb word(colours, at(i))
