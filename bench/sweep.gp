# SPDX-License-Identifier: MIT
# Copyright (c) the poolmalloc authors
#
# How the cost of an operation grows, a line for each allocator, a panel for each kind of work.
# pictures.py sets data (files are data1.dat, data2.dat, ...), picture, titles (between bars),
# panels, axis, columns, colours, marks, ours, and binary (x are powers of 2, not of 10).

across = panels > 1 ? 2 : 1
down = (panels + across - 1) / across
high = panels > 1 ? 290 : 400
legend = 60.0 / (down * high + 60)

set terminal svg size 860, (down * high + 60) font "sans-serif,13" background "white"
set output picture
set border 3 lc rgb "#888888"
set grid lc rgb "#dddddd" lt 1
set tics nomirror textcolor rgb "black"
set logscale xy
set offsets graph 0.03, graph 0.03, graph 0.08, graph 0.04
set key off
if (binary) {
    set xtics ("1" 1, "2" 2, "4" 4, "8" 8, "16" 16, "32" 32, "64" 64, "256" 256, "1 Ki" 1024, \
        "4 Ki" 4096, "16 Ki" 16384, "64 Ki" 65536, "256 Ki" 262144, "1 Mi" 1048576, \
        "4 Mi" 4194304)
} else {
    set format x "10^{%L}"
}
set ytics ("1" 1, "2" 2, "5" 5, "10" 10, "20" 20, "50" 50, "100" 100, "200" 200, "500" 500, \
    "1 000" 1000, "2 000" 2000, "5 000" 5000, "10 000" 1e4, "100 000" 1e5, "1 000 000" 1e6)
set xlabel axis
set ylabel "ns for an operation"

title_of(n) = system(sprintf("printf %%s \"%s\" | cut -d'|' -f%d", titles, n))
# Ours is drawn last and strongest.
at(i) = ours == 0 ? i : i == columns ? ours : i < ours ? i : i + 1
strong(i) = at(i) == ours
do for [quiet in "1"] {
    set multiplot layout down, across margins 0.09, 0.98, legend + 0.10, 0.93 spacing 0.1, 0.13
}
do for [n = 1:panels] {
    if (n == panels) {
        set key at screen 0.5, screen legend * 0.5 center center horizontal reverse Left maxrows 2
    }
    set title title_of(n)
    plot for [i = 1:columns] data.n.".dat" using 1:(column(at(i) + 1)) title columnheader(at(i) + 1) \
        with linespoints lw (strong(i) ? 2.5 : 1.3) ps (strong(i) ? 0.9 : 0.7) \
        pt (word(marks, at(i)) + 0) lc rgb word(colours, at(i))
}
unset multiplot
