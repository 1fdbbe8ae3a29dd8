# SPDX-License-Identifier: MIT
# Copyright (c) the poolmalloc authors
#
# poolobject beside CPython. objects.py sets kind (time or pause), data, picture and rows (time): a
# line for each operation, its ratio and its goal; or pauses by the number of containers, a column
# for each line: poolobject fresh and aged, CPython fresh and aged.

ours = "#cc3311"
ours_fresh = "#e69988"
theirs = "#4477aa"
theirs_fresh = "#99bbdd"

set output picture
set border 3 lc rgb "#888888"
set xtics nomirror textcolor rgb "black"
set ytics nomirror textcolor rgb "black"
set grid xtics ytics lc rgb "#dddddd" lt 1
set key outside bottom center horizontal reverse Left

if (kind eq "time") {
    set terminal svg size 860, (120 + 22 * rows) font "sans-serif,13" background "white"
    set title "Time of poolobject, over CPython 3.11's"
    set rmargin at screen 0.97
    set logscale x 2
    set autoscale xfix
    set offsets graph 0.03, graph 0.08, 0, 0 # the figures are at the right of their points
    set xtics ("0.05" 0.05, "0.1" 0.1, "0.15" 0.15, "0.25" 0.25, "0.35" 0.35, "0.5" 0.5, \
        "0.7" 0.7, "1" 1, "1.5" 1.5, "2" 2, "3" 3, "5" 5, "10" 10)
    set yrange [rows + 0.5 : 0.5] # the first operation on top
    set arrow from first 1, graph 0 to first 1, graph 1 nohead lc rgb "#444444" lw 1.5
    # Points that lie on 1, or on goals, keep them within the picture.
    plot data skip 1 using (1):($0 + 1) with points pt 0 lc rgb "#444444" notitle, \
        data skip 1 using 3:($0 + 1) with points pt 0 lc rgb "#444444" notitle, \
        data skip 1 using 3:($0 + 0.65):(0):(0.7) with vectors nohead lw 3 lc rgb "#44aa66" \
            title "goal, at most", \
        data skip 1 using 2:($0 + 1):ytic(1) with points pt 7 ps 1.2 lc rgb ours \
            title "poolobject", \
        data skip 1 using 2:($0 + 1):(sprintf("%.2f", $2)) with labels left offset 0.9, 0 notitle
} else {
    set terminal svg size 860, 480 font "sans-serif,13" background "white"
    set title "Pause of a full collection, by the number of live lists" \
        . " (aged: all were replaced in random order)"
    set logscale xy
    set autoscale xfix
    set offsets graph 0.03, graph 0.03, 0, 0
    set format x "10^{%L}"
    set ytics ("1 µs" 0.001, "10 µs" 0.01, "100 µs" 0.1, "1 ms" 1, "10 ms" 10, "100 ms" 100, \
        "1 s" 1000, "10 s" 1e4, "100 s" 1e5)
    plot data skip 1 using 1:5 with linespoints lw 1.8 pt 5 lc rgb theirs title "CPython, aged", \
        data skip 1 using 1:4 with linespoints lw 1.8 pt 4 lc rgb theirs_fresh \
            title "CPython, fresh", \
        data skip 1 using 1:3 with linespoints lw 2.5 pt 7 lc rgb ours title "poolobject, aged", \
        data skip 1 using 1:2 with linespoints lw 2.5 pt 6 lc rgb ours_fresh \
            title "poolobject, fresh"
}
