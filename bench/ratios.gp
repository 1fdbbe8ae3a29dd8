# SPDX-License-Identifier: MIT
# Copyright (c) the poolmalloc authors
#
# One picture of ratios: a line for each workload, a point for each allocator. bench/run sets
# data, picture, heading, columns (allocators) and rows (workloads).

set terminal svg size 860, (120 + 22 * rows) font "sans-serif,13" background "white"
set output picture
set title heading
set key outside bottom center horizontal reverse Left
set logscale x 2
set autoscale xfix
set offsets graph 0.03, graph 0.03, 0, 0
set xtics nomirror ("0.25" 0.25, "0.5" 0.5, "0.7" 0.7, "1" 1, "1.5" 1.5, "2" 2, "3" 3, \
    "4" 4, "6" 6, "8" 8, "12" 12, "16" 16, "32" 32) textcolor rgb "black"
set grid xtics ytics lc rgb "#dddddd" lt 1
set border 3 lc rgb "#888888"
set yrange [rows + 0.5 : 0.5] # the first workload on top
set ytics nomirror textcolor rgb "black"
set arrow from first 1, graph 0 to first 1, graph 1 nohead lc rgb "#444444" lw 1.5

# Distinct in hue and in lightness; the last allocator is ours and drawn largest.
array colour[6] = ["#4477aa", "#ee7733", "#228833", "#aa3377", "#66ccee", "#bbbb33"]
array mark[6] = [4, 8, 12, 10, 6, 14]
plot for [i = 1:columns] data using (column(i + 1)):($0 + 1):ytic(1) title columnheader(i + 1) \
        with points \
        pt (i == columns ? 7 : mark[(i - 1) % 6 + 1]) ps (i == columns ? 1.2 : 1.0) lw 1.5 \
        lc rgb (i == columns ? "#cc3311" : colour[(i - 1) % 6 + 1])
