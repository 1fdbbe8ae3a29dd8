#!/usr/bin/python3
# SPDX-License-Identifier: MIT
# Copyright (c) the poolmalloc authors
#
# Writes what this Python does with random graphs of objects, for ../python.c to do the same.
#
#     make_logs.py [GRAPHS [FIRST_SEED]]
#
# A line is a step and, after a colon, what happened in it, in order. Nodes, weak references and edges
# have numbers.
#
#     g SEED               a new graph
#     n NODE ACT           a node, held from outside; ACT is what its finalizer does: 0 nothing, 1 saves
#                          itself, 2 drops its edge 0, 3 saves what its edge 1 refers to, 5 refers to
#                          itself by its edge 2 where that is none
#     e NODE EDGE NODE     sets an edge; -1 is none
#     w WEAK NODE DROPS    a weak reference with a callback, held from outside; the callback drops what
#                          holds a node from outside, -1: none
#     v WEAK NODE          that one is held by a node instead
#     d WEAK               it is dropped
#     x NODE               a node is held from outside no more
#     s NODE               it was saved, and is dropped
#     c GENERATION         a collection
#     l WEAK ...           these weak references, of those that are held from outside, have a target
#
#     Fn Wn Rn             node n is finalized; weak reference n calls; the references of n are gone
#     =n                   what the collection returned
#
# Python itself says nothing about the order within a phase of a collection. So no graph has two
# finalizers or callbacks whose order would matter for what is left; and once a finalizer has brought
# something back, whose generation depends on that order, only full collections follow.

import gc
import random
import sys
import weakref

MIN_NODES, MAX_NODES, WEAKS = 3, 24, 8
DEEP_EVERY, DEEP_NODES = 10, 60 # CPython's depth is 50


def make_token(number, act):
    """The last thing that a node holds, which tells of its end. It is code because that is no container
    and may have weak references."""
    token = make_token.__code__.replace(co_firstlineno=act << 16 | number)
    world.tokens[number] = weakref.ref(token, lambda _: world.events.append("R%d" % number))
    return token


def number_of(node):
    return node.z.co_firstlineno & 0xFFFF


class Node:
    __slots__ = ("e0", "e1", "e2", "v", "z", "__weakref__")

    def __del__(self):
        number, act = number_of(self), self.z.co_firstlineno >> 16
        world.events.append("F%d" % number)
        if act == 1:
            world.save(number, self)
        elif act == 2:
            self.e0 = None
        elif act == 3 and self.e1 is not None:
            world.save(number_of(self.e1), self.e1)
        elif act == 5 and self.e2 is None:
            world.has_saved = True
            self.e2 = self


class World:
    def __init__(self):
        self.events = []
        self.outside = {}
        self.saved = {}
        self.tokens = {}
        self.weak = {}
        self.weak_number = {}
        self.drops = {}
        self.has_saved = False

    def save(self, number, node):
        self.has_saved = True
        self.saved.setdefault(number, []).append(node)


world = World()


def callback(weak):
    number = world.weak_number[id(weak)]
    world.events.append("W%d" % number)
    world.outside.pop(world.drops[number], None)


def said(step):
    events, world.events = world.events, []
    print(step + (":" + " ".join(events) if events else ""))


def make_node(number, act):
    node = Node()
    node.e0 = node.e1 = node.e2 = node.v = None
    node.z = make_token(number, act)
    world.outside[number] = node


def make_weak(number, node, drops):
    weak = weakref.ref(world.outside[node], callback)
    world.weak[number] = weak
    world.weak_number[id(weak)] = number
    world.drops[number] = drops


def set_edge(node, edge, to):
    setattr(world.outside[node], "e%d" % edge, world.outside[to] if to >= 0 else None)


def held(rng, also_none=False):
    choice = sorted(world.outside)
    return -1 if also_none and rng.random() < 0.2 or not choice else rng.choice(choice)


def drop_saved(node):
    kept = world.saved[node]
    if len(kept) == 1:
        del world.saved[node]
    # What is popped is held by nothing else then.
    kept.pop()


def one_step(rng, may_drop, weaks):
    what = rng.random()
    if what < 0.25:
        node, edge, to = held(rng), rng.randrange(3), held(rng, True)
        if node >= 0:
            set_edge(node, edge, to)
            said("e %d %d %d" % (node, edge, to))
    elif what < 0.55:
        node = held(rng)
        if node >= 0:
            world.outside.pop(node)
            said("x %d" % node)
    elif what < 0.65:
        if world.saved:
            node = rng.choice(sorted(world.saved))
            drop_saved(node)
            said("s %d" % node)
    elif what < 0.75:
        if world.weak:
            number = rng.choice(sorted(world.weak))
            del world.weak[number]
            said("d %d" % number)
    elif what < 0.85:
        node = held(rng)
        if node >= 0 and weaks[0] < WEAKS:
            number, drops = weaks[0], held(rng) if may_drop and rng.random() < 0.5 else -1
            weaks[0] += 1
            make_weak(number, node, drops)
            said("w %d %d %d" % (number, node, drops))
            holder = held(rng)
            if not may_drop and rng.random() < 0.4 and world.outside[holder].v is None:
                world.outside[holder].v = world.weak.pop(number)
                said("v %d %d" % (number, holder))
    else:
        collect(2 if world.has_saved else rng.randrange(3))


def collect(generation):
    found = gc.collect(generation)
    world.events.append("=%d" % found)
    said("c %d" % generation)
    said("l" + "".join(" %d" % n for n in sorted(world.weak) if world.weak[n]() is not None))


def make_deep_graph(rng):
    """A chain with side edges further down, which one reference holds: nodes end within each other, about
    to the depth from which on they wait."""
    count = rng.randint(DEEP_NODES - 25, DEEP_NODES)
    acts = rng.choice(((0,), (0, 0, 0, 1), (0, 0, 2)))
    side_edges = rng.choice((0, 0.05, 0.5))
    for number in range(count):
        act = rng.choice(acts)
        make_node(number, act)
        said("n %d %d" % (number, act))
    for node in range(count - 1):
        chain = rng.randrange(3)
        set_edge(node, chain, node + 1)
        said("e %d %d %d" % (node, chain, node + 1))
        if rng.random() < side_edges:
            edge, to = (chain + 1) % 3, rng.randrange(node + 1, count)
            set_edge(node, edge, to)
            said("e %d %d %d" % (node, edge, to))
    for node in range(count - 1, -1, -1):
        world.outside.pop(node)
        said("x %d" % node)


def make_graph(seed):
    global world
    world = World()
    gc.collect()
    gc.freeze()
    rng = random.Random(seed)
    said("g %d" % seed)
    if seed % DEEP_EVERY == 0:
        make_deep_graph(rng)
    else:
        make_flat_graph(rng)
    collect(2)
    while world.saved:
        node = min(world.saved)
        drop_saved(node)
        said("s %d" % node)
        if not world.saved:
            collect(2)


def make_flat_graph(rng):
    acts = rng.choice(((0,), (0, 0, 1, 3), (0, 1, 2, 3), (0, 0, 1, 3, 5)))
    may_drop = rng.random() < 0.5
    count, weaks = rng.randint(MIN_NODES, MAX_NODES), [0]
    for number in range(count):
        act = rng.choice(acts)
        make_node(number, act)
        said("n %d %d" % (number, act))
    for _ in range(rng.randint(count // 2, count * 2)):
        node, edge, to = held(rng), rng.randrange(3), held(rng)
        set_edge(node, edge, to)
        said("e %d %d %d" % (node, edge, to))
    for _ in range(rng.randint(8, 30)):
        one_step(rng, may_drop, weaks)
    for node in sorted(world.outside):
        if node in world.outside:
            world.outside.pop(node)
            said("x %d" % node)


def main():
    graphs = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    first = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    print("# Python %s" % sys.version.replace("\n", " "))
    print("# /usr/bin/python3 make_logs.py %d %d" % (graphs, first))
    gc.disable()
    for seed in range(first, first + graphs):
        make_graph(seed)


main()
