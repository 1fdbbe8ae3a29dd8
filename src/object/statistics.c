// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// The section of objects in poolmalloc's statistics: for all states together the collector's
// figures, and the objects by type.
//
// The report may be asked for by any thread. A state's figures are single words, read as they are.
// Its objects can only be walked while nobody uses it, of which the library can be sure where the
// process has one thread; otherwise states are counted as in use elsewhere.

#include <string.h>
#include <sys/single_threaded.h>

#include "object/object.h"

#define TYPES_SHOWN 64

// Under the lock of the states.
static struct {
    unsigned number;
    size_t live, bytes;
} types[TYPES_SHOWN];

static size_t others; // objects of types beyond these

static int count_type(void *block, size_t size, void *argument) {
    (void)argument;
    const unsigned number = ((const po_object *)block)->type_;
    unsigned at = 0;
    while (at < TYPES_SHOWN && types[at].number != number && types[at].number != 0) {
        at++;
    }
    if (po_slots[number] == NULL) {
        return 0;
    }
    if (at == TYPES_SHOWN) {
        others++;
        return 0;
    }
    types[at].number = number;
    types[at].live++;
    types[at].bytes += size;
    return 0;
}

static void write_types(pm_report *to) {
    pm_report_begin(to, "types");
    for (unsigned i = 0; i < TYPES_SHOWN && types[i].number != 0; i++) {
        pm_report_begin(to, po_slots[types[i].number]->type->name);
        pm_report_number(to, "live", types[i].live);
        pm_report_number(to, "bytes", types[i].bytes);
        pm_report_end(to);
    }
    pm_report_end(to);
    if (others != 0) {
        pm_report_number(to, "objects_of_other_types", others);
    }
}

static void write_generation(pm_report *to, unsigned generation) {
    static const char *const names[] = { "generation_0", "generation_1", "generation_2" };
    uint64_t runs = 0, collected = 0, survived = 0, longest = 0, total = 0;
    for (const po_state *state = po_states_first; state != NULL; state = state->next) {
        const __typeof__(state->stats.generation[0]) *const of =
            &state->stats.generation[generation];
        runs += of->runs;
        collected += of->collected;
        survived += of->survived;
        longest = of->longest_ns > longest ? of->longest_ns : longest;
        total += of->total_ns;
    }
    pm_report_begin(to, names[generation]);
    pm_report_number(to, "runs", runs);
    pm_report_number(to, "collected", collected);
    pm_report_number(to, "survived", survived);
    pm_report_number(to, "longest_pause_ns", longest);
    pm_report_number(to, "pauses_ns", total);
    pm_report_end(to);
}

static void write_section(pm_report *to, void *context) {
    (void)context;
    if (!po_states_try_lock()) {
        return;
    }
    size_t count = 0, elsewhere = 0, bytes = 0, spares = 0, spare_bytes = 0;
    memset(types, 0, sizeof types);
    others = 0;
    for (po_state *state = po_states_first; state != NULL; state = state->next) {
        count++;
        bytes += po_bytes_held(state);
        for (size_t at = 0; at < PO_SPARE_SIZES; at++) {
            spares += state->spares[at];
            spare_bytes += state->spares[at] * at * 16;
        }
        if (__libc_single_threaded && state->running < 0 && !state->is_ending) {
            po_walk(state, true, count_type, NULL);
            po_walk(state, false, count_type, NULL);
        } else {
            elsewhere++;
        }
    }
    pm_report_number(to, "states", count);
    pm_report_number(to, "states_not_looked_into", elsewhere);
    pm_report_number(to, "bytes_held", bytes);
    pm_report_number(to, "blocks_kept_for_the_next_objects", spares);
    pm_report_number(to, "bytes_of_these", spare_bytes);
    for (unsigned generation = 0; generation < PO_GENERATIONS; generation++) {
        write_generation(to, generation);
    }
    write_types(to);
    po_states_unlock();
}

void po_statistics_start(void) {
    static struct pm_report_section section = { "poolobject", write_section, NULL, NULL };
    pm_report_add(&section);
}
