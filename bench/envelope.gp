# SPDX-License-Identifier: MIT
# Copyright (c) the poolmalloc authors
#
# Bars for each allocator, one for each figure: to the best peer on each workload. pictures.py sets
# data, picture, heading, columns (allocators), bars (figures), titles (between bars), colours and
# ours.

set terminal svg size 860, (130 + (12 + 17 * bars) * columns) font "sans-serif,13" background "white"
set output picture
set title heading
set key outside bottom center horizontal reverse Left
set style fill solid 1 noborder
set xrange [0:*]
set yrange [columns + 0.6 : 0.4] # the best on top
set offsets 0, graph 0.08, 0, 0
set xtics nomirror textcolor rgb "black"
set ytics nomirror scale 0 textcolor rgb "black"
set grid xtics lc rgb "#dddddd" lt 1
set rmargin at screen 0.97
set border 1 lc rgb "#888888"
set arrow from first 1, graph 0 to first 1, graph 1 nohead lc rgb "#444444" lw 1.5 front
thick = 0.72 / bars
middle(bar) = (bar - (bars + 1) / 2.0) * thick # of a bar, beside the allocator's line
title_of(n) = system(sprintf("printf %%s \"%s\" | cut -d'|' -f%d", titles, n))
bar_colours = "#4477aa #ccaa44 #228833"

# A plot of nothing puts the names on the lines.
plot data skip 1 using (0):($0 + 1):ytic(1) with points pt 0 notitle, \
    for [bar = 1:bars] data skip 1 using (column(bar + 1) / 2):($0 + 1 + middle(bar)): \
            (column(bar + 1) / 2):(thick / 2) \
        with boxxyerror lc rgb word(bar_colours, bar) title title_of(bar), \
    for [bar = 1:bars] data skip 1 using (column(bar + 1)):($0 + 1 + middle(bar)): \
            (sprintf("%.2f", column(bar + 1))) with labels left offset 0.6, 0 notitle
