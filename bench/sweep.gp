# SPDX-License-Identifier: MIT
# Copyright (c) the poolmalloc authors
#
# How the cost of an operation grows, a line for each allocator, a panel for each kind of work; all
# panels have the same scale. pictures.py sets data (files are data1.dat, data2.dat, ...), picture,
# titles (between bars), panels, axis, columns, colours, marks, ours, low and high (of y), and
# binary (x are powers of 2, not of 10).

across = panels > 1 ? 2 : 1
down = (panels + across - 1) / across
height = panels > 1 ? 300 : 420 # of a panel with its title and labels, in pixels
legend = 56                     # of the legend
whole = 1.0 * down * height + legend

set terminal svg size 860, whole font "sans-serif,13" background "white"
set output picture
set multiplot
set border 3 lc rgb "#888888"
set grid lc rgb "#dddddd" lt 1
set tics nomirror textcolor rgb "black"
set logscale xy
set autoscale xfix
set offsets graph 0.03, graph 0.03, 0, 0
set yrange [low:high]
set key off
if (binary) {
    set xtics ("1" 1, "2" 2, "4" 4, "8" 8, "16" 16, "64" 64, "256" 256, "1 Ki" 1024, \
        "4 Ki" 4096, "16 Ki" 16384, "64 Ki" 65536, "256 Ki" 262144, "1 Mi" 1048576, \
        "4 Mi" 4194304)
} else {
    set format x "10^{%L}"
}
set ytics ("1" 1, "2" 2, "5" 5, "10" 10, "20" 20, "50" 50, "100" 100, "200" 200, "500" 500, \
    "1 000" 1000, "2 000" 2000, "5 000" 5000, "10 000" 1e4, "100 000" 1e5, "1 000 000" 1e6)
set xlabel axis offset 0, 0.4
set ylabel "ns for an operation"

title_of(n) = system(sprintf("printf %%s \"%s\" | cut -d'|' -f%d", titles, n))
# Ours is drawn last, above the others, and strongest.
at(i) = ours == 0 ? i : i == columns ? ours : i < ours ? i : i + 1
strong(i) = at(i) == ours
pixel(y) = 1 - y / whole # from the top

do for [n = 1:panels] {
    column_of = (n - 1) % across
    row_of = (n - 1) / across
    set lmargin at screen (1.0 * column_of / across + 0.08)
    set rmargin at screen (1.0 * (column_of + 1) / across - 0.02)
    set tmargin at screen pixel(row_of * height + 44.0)
    set bmargin at screen pixel((row_of + 1.0) * height - 54)
    set title title_of(n) offset 0, -0.3
    plot for [i = 1:columns] data.n.".dat" using 1:(column(at(i) + 1)) title columnheader(at(i) + 1) \
        with linespoints lw (strong(i) ? 2.5 : 1.3) ps (strong(i) ? 0.9 : 0.7) \
        pt (word(marks, at(i)) + 0) lc rgb word(colours, at(i))
}

# The legend: a plot of nothing, over the whole width.
unset title
unset xlabel
unset ylabel
unset tics
unset border
unset grid
unset logscale
set xrange [0:1]
set yrange [0:1]
set lmargin at screen 0.02
set rmargin at screen 0.98
set tmargin at screen pixel(whole - legend)
set bmargin at screen pixel(whole - 4)
set key center center horizontal reverse Left samplen 2 maxrows 2
plot for [i = 1:columns] NaN title word(names, at(i)) with linespoints \
    lw (strong(i) ? 2.5 : 1.3) ps (strong(i) ? 0.9 : 0.7) \
    pt (word(marks, at(i)) + 0) lc rgb word(colours, at(i))
unset multiplot
