// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// The misses, start-up, the choice of mode, and the functions without a fast path.

#include "entry/entry.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

#include "base/atomic.h"
#include "base/bits.h"
#include "config/options.h"
#include "core/age.h"
#include "core/background.h"
#include "core/emergency.h"
#include "core/heap.h"
#include "core/life.h"
#include "core/limit.h"
#include "core/misuse.h"
#include "core/mode.h"
#include "core/root.h"
#include "entry/fast.h"
#include "insight/report.h"
#include "os/os.h"

static const struct pm_mode *const mode = &pm_mode_default;

// The calling thread's place in the library while it is inside a mode's function.
enum visit {
    ENTERED,   // go on, and leave afterwards
    NO_MEMORY, // the thread could not get a heap
    REENTERED  // a signal handler interrupted this thread in here: touch no heap, take no lock
};

// The thread's word says busy. That is a handler inside an interrupted call, or the program has
// left such a handler by a jump, for good. Then no handler runs, and none of its signals is
// blocked; a fast path that is never resumed has lost a block, or a chain of them, at most, but a
// miss may have left anything.
static bool was_jumped_out_of(void) {
    const struct pm_heap *const heap = pm_thread.heap;
    return heap != NULL && heap != PM_HEAP_ENDED && !heap->in_miss && !pm_os_signals_blocked();
}

// Blocks that handlers freed inside an interrupted call, or threads that can't have a heap: linked
// by their first words, freed at the next miss of any thread.
static uintptr_t deferred;
static void free_deferred(void);

static enum visit enter(void) {
    if (PM_UNLIKELY(pm_thread.fast == PM_BUSY_HEAP) && !was_jumped_out_of()) {
        return REENTERED;
    }
    pm_set(&pm_thread.fast, PM_BUSY_HEAP);
    pm_signal_fence();
    if (PM_UNLIKELY(pm_thread.heap == NULL)) {
        const bool begun = pm_life_begin_thread();
        pm_set(&pm_thread.fast, begun ? PM_BUSY_HEAP : PM_NO_HEAP);
        if (!begun) {
            return NO_MEMORY;
        }
    }
    if (PM_LIKELY(pm_thread.heap != PM_HEAP_ENDED)) {
        pm_thread.heap->in_miss = true;
    }
    pm_signal_fence();
    if (PM_UNLIKELY(pm_get(&deferred) != 0)) {
        free_deferred();
    }
    return ENTERED;
}

static void leave(void) {
    struct pm_heap *const heap = pm_thread.heap;
    const bool ended = heap == PM_HEAP_ENDED;
    pm_signal_fence();
    if (PM_LIKELY(!ended)) {
        heap->in_miss = false;
    }
    pm_set(&pm_thread.fast, ended ? PM_NO_HEAP : heap);
}

bool pm_entry_begin(void) {
    return enter() == ENTERED;
}

void pm_entry_end(void) {
    leave();
}

// A thread that can't have a heap does it as one that has ended.
bool pm_entry_give(void (*give)(void *argument), void *argument) {
    switch (enter()) {
    case ENTERED:
        give(argument);
        leave();
        return true;
    case NO_MEMORY:
        pm_set(&pm_thread.fast, PM_BUSY_HEAP);
        pm_signal_fence();
        pm_thread.heap = PM_HEAP_ENDED;
        if (pm_get(&deferred) != 0) {
            free_deferred();
        }
        give(argument);
        pm_signal_fence();
        pm_thread.heap = NULL;
        pm_set(&pm_thread.fast, PM_NO_HEAP);
        return true;
    case REENTERED: break;
    }
    return false;
}

static void *out_of_memory(void) {
    errno = ENOMEM;
    return NULL;
}

static void *allocate(size_t n, bool zero) {
    if (PM_UNLIKELY(n > PTRDIFF_MAX)) {
        return out_of_memory();
    }
    void *at = NULL;
    switch (enter()) {
    case ENTERED:
        at = mode->malloc(n, zero);
        leave();
        break;
    case REENTERED: at = pm_emergency_malloc(n, PM_BLOCK_ALIGN); break;
    case NO_MEMORY: break;
    }
    return PM_LIKELY(at != NULL) ? at : out_of_memory();
}

// Medium blocks take the fast path one call further.
PM_NOINLINE void *pm_malloc_miss(size_t n) {
    if (n > PM_SMALL_MAX && n <= PM_MEDIUM_MAX) {
        void *const at = pm_fast_pop(pm_lane_of(n), PM_MEDIUM_POOL_BITS);
        if (PM_LIKELY(at != NULL)) {
            return at;
        }
    }
    return allocate(n, false);
}

// The `free` that a program without us would have called.
static void free_by_libc(void *at) {
    static void (*next_free)(void *);
    void (*known)(void *) = pm_get(&next_free);
    if (known == NULL) {
        *(void **)&known = dlsym(RTLD_NEXT, "free");
        if (known == NULL) {
            pm_misuse("free", at, PM_LIBCS);
        }
        pm_set(&next_free, known);
    }
    known(at);
}

static void defer(void *at) {
    uintptr_t first = pm_get(&deferred);
    do {
        *(pm_link *)at = first;
    } while (!__atomic_compare_exchange_n(&deferred, &first, (uintptr_t)at, true, __ATOMIC_RELEASE,
                                          __ATOMIC_RELAXED));
}

static uint32_t draining; // threads that free deferred blocks; atomic

static PM_NOINLINE void free_deferred(void) {
    __atomic_fetch_add(&draining, 1, __ATOMIC_ACQ_REL);
    uintptr_t block = __atomic_exchange_n(&deferred, 0, __ATOMIC_ACQUIRE);
    while (block != 0) {
        const uintptr_t next = *(const pm_link *)block;
        const enum pm_verdict verdict = mode->free((void *)block);
        if (PM_UNLIKELY(verdict != PM_DONE)) {
            pm_misuse("free", (void *)block, verdict);
        }
        block = next;
    }
    __atomic_fetch_sub(&draining, 1, __ATOMIC_RELEASE);
}

// A thread that has jumped out of there for good would be waited for in vain: so not without end.
void pm_entry_settle(void) {
    for (unsigned i = 0; i < PM_SETTLE_YIELDS && __atomic_load_n(&draining, __ATOMIC_ACQUIRE) != 0;
         i++) {
        pm_os_yield();
    }
}

static void after_fork_in_child(void) {
    pm_life_after_fork_in_child();
    __atomic_store_n(&draining, 0, __ATOMIC_RELAXED);
}

// Only what is proved to be a block is written to.
enum pm_verdict pm_entry_free_later(void *at) {
    enum pm_verdict verdict;
    switch (pm_map_kind(at)) {
    case PM_SLOT_SMALL:
    case PM_SLOT_MEDIUM:
    case PM_SLOT_RUNS:
    case PM_SLOT_LARGE_RUNS:
    case PM_SLOT_HUGE:
        mode->usable_size(at, &verdict);
        if (verdict == PM_DONE) {
            defer(at);
        }
        return verdict;
    default: return mode->free(at);
    }
}

static void release(const char *function, void *at) {
    enum pm_verdict verdict = PM_DONE;
    switch (enter()) {
    case ENTERED:
        verdict = mode->free(at);
        leave();
        break;
    case NO_MEMORY:
    case REENTERED: verdict = pm_entry_free_later(at); break;
    }
    if (PM_UNLIKELY(verdict == PM_LIBCS)) {
        free_by_libc(at);
    } else if (PM_UNLIKELY(verdict != PM_DONE)) {
        pm_misuse(function, at, verdict);
    }
}

PM_NOINLINE void pm_free_miss(void *at) {
    enum pm_slot_kind kind = pm_map_kind_near(at);
    if (PM_UNLIKELY(kind == PM_SLOT_NONE)) {
        kind = pm_map_kind(at);
        if (pm_fast_free_in(kind, at)) {
            return;
        }
    }
    if (kind == PM_SLOT_SMALL && pm_heap_push_remote(at, PM_SMALL_POOL_BITS)) {
        return;
    }
    if (kind == PM_SLOT_MEDIUM && pm_heap_push_remote(at, PM_MEDIUM_POOL_BITS)) {
        return;
    }
    if (at != NULL) {
        release("free", at);
    }
}

PM_NOINLINE void pm_free_emptied(struct pm_pool *pool, void *at) {
    pm_thread.heap->in_miss = true;
    pm_signal_fence();
    const bool emptied = pm_heap_pool_emptied(pm_thread.heap, pool);
    leave();
    if (PM_UNLIKELY(!emptied)) {
        pm_misuse("free", at, PM_DOUBLE_FREE);
    }
}

void *pm_entry_calloc(size_t count, size_t size) {
    size_t n;
    if (PM_UNLIKELY(__builtin_mul_overflow(count, size, &n))) {
        return out_of_memory();
    }
    void *const at = pm_fast_malloc(n);
    return PM_LIKELY(at != NULL) ? memset(at, 0, n) : allocate(n, true);
}

// Bytes of a block in a pool; 0 for all else.
static size_t pool_size(const void *at) {
    switch (pm_map_kind(at)) {
    case PM_SLOT_SMALL: return pm_fast_size(at, PM_SMALL_POOL_BITS);
    case PM_SLOT_MEDIUM: return pm_fast_size(at, PM_MEDIUM_POOL_BITS);
    default: return 0;
    }
}

static void *reallocate_reentered(void *at, size_t n) {
    enum pm_verdict verdict;
    const size_t size = mode->usable_size(at, &verdict);
    if (verdict != PM_DONE && verdict != PM_LIBCS) {
        pm_misuse("realloc", at, verdict);
    }
    void *const moved = pm_emergency_malloc(n, PM_BLOCK_ALIGN);
    if (moved == NULL) {
        return out_of_memory();
    }
    memcpy(moved, at, pm_min(size, n));
    release("realloc", at);
    return moved;
}

// A block of libc's own malloc becomes one of ours.
static void *take_over(void *at, size_t n) {
    const size_t size = pm_entry_usable_size(at);
    void *const moved = allocate(n, false);
    if (moved != NULL) {
        memcpy(moved, at, pm_min(size, n));
        free_by_libc(at);
    }
    return moved;
}

void *pm_entry_realloc(void *at, size_t n) {
    enum pm_verdict verdict = PM_DONE;
    void *moved = NULL;
    if (at == NULL) {
        void *const fresh = pm_fast_malloc(n);
        return PM_LIKELY(fresh != NULL) ? fresh : pm_malloc_miss(n);
    }
    if (n == 0) {
        release("realloc", at);
        return NULL;
    }
    const size_t size = pool_size(at);
    if (size != 0) {
        if (pm_class_fits(size, n)) {
            return at;
        }
        moved = pm_fast_malloc(n);
        if (PM_LIKELY(moved != NULL)) {
            memcpy(moved, at, pm_min(size, n));
            if (PM_UNLIKELY(!pm_fast_free(at))) {
                pm_free_miss(at);
            }
            return moved;
        }
    }
    if (PM_UNLIKELY(n > PTRDIFF_MAX)) {
        return out_of_memory();
    }
    switch (enter()) {
    case ENTERED:
        moved = mode->realloc(at, n, &verdict);
        leave();
        break;
    case REENTERED: return reallocate_reentered(at, n);
    case NO_MEMORY: break;
    }
    if (PM_UNLIKELY(verdict == PM_LIBCS)) {
        return take_over(at, n);
    }
    if (PM_UNLIKELY(verdict != PM_DONE)) {
        pm_misuse("realloc", at, verdict);
    }
    return PM_LIKELY(moved != NULL) ? moved : out_of_memory();
}

void *pm_entry_reallocarray(void *at, size_t count, size_t size) {
    size_t n;
    if (PM_UNLIKELY(__builtin_mul_overflow(count, size, &n))) {
        return out_of_memory();
    }
    return pm_entry_realloc(at, n);
}

// align is a power of two. NULL without memory; errno is left to the callers.
static void *aligned(size_t align, size_t n) {
    size_t sum;
    void *at = NULL;
    if (PM_UNLIKELY(__builtin_add_overflow(n, align, &sum) || sum > PTRDIFF_MAX)) {
        return NULL;
    }
    if (PM_LIKELY(n != 0 && pm_class_can_align(align, n))) {
        const pm_class class = pm_class_aligned(align, n);
        at = PM_LIKELY(class < PM_CLASS_SMALL_COUNT)
                 ? pm_fast_pop(pm_classes[class].lane, PM_SMALL_POOL_BITS)
                 : pm_fast_pop(pm_classes[class].lane, PM_MEDIUM_POOL_BITS);
        if (PM_LIKELY(at != NULL)) {
            if (PM_LIKELY(((uintptr_t)at & (align - 1)) == 0)) {
                return at;
            }
            // The class is a guest, and its host's blocks lie elsewhere.
            if (!pm_fast_free(at)) {
                pm_free_miss(at);
            }
        }
    }
    switch (enter()) {
    case ENTERED:
        at = mode->aligned(align, n);
        leave();
        break;
    case REENTERED: at = pm_emergency_malloc(n, align); break;
    case NO_MEMORY: break;
    }
    return at;
}

void *pm_entry_aligned_alloc(size_t align, size_t n) {
    if (PM_UNLIKELY(!pm_is_power_of_two(align))) {
        errno = EINVAL;
        return NULL;
    }
    void *const at = aligned(align, n);
    return PM_LIKELY(at != NULL) ? at : out_of_memory();
}

void *pm_entry_memalign(size_t align, size_t n) {
    if (align > PTRDIFF_MAX) {
        errno = EINVAL;
        return NULL;
    }
    return pm_entry_aligned_alloc(align <= 1 ? 1 : (size_t)2 << pm_log2(align - 1), n);
}

int pm_entry_posix_memalign(void **to, size_t align, size_t n) {
    if (!pm_is_power_of_two(align) || align % sizeof(void *) != 0) {
        return EINVAL;
    }
    void *const at = aligned(align, n);
    if (PM_UNLIKELY(at == NULL)) {
        return ENOMEM;
    }
    *to = at;
    return 0;
}

void *pm_entry_valloc(size_t n) {
    return pm_entry_aligned_alloc(pm_os_page_size(), n);
}

void *pm_entry_pvalloc(size_t n) {
    const size_t page = pm_os_page_size();
    if (PM_UNLIKELY(n > PTRDIFF_MAX - page)) {
        return out_of_memory();
    }
    return pm_entry_aligned_alloc(page, pm_round_up(pm_max(n, 1), page));
}

size_t pm_entry_usable_size(const void *at) {
    enum pm_verdict verdict;
    if (at == NULL) {
        return 0;
    }
    size_t size = pool_size(at);
    if (PM_LIKELY(size != 0)) {
        return size;
    }
    size = mode->usable_size(at, &verdict);
    if (PM_UNLIKELY(verdict != PM_DONE && verdict != PM_LIBCS)) {
        pm_misuse("malloc_usable_size", at, verdict);
    }
    return size;
}

int pm_entry_trim(void) {
    if (!pm_life_started()) {
        return 0;
    }
    // A handler that interrupted a miss leaves everything alone.
    if (!pm_entry_begin()) {
        return 0;
    }
    const size_t bytes = pm_age_trim();
    leave();
    return bytes != 0;
}

// Where two of our libraries are loaded, the first one serves the pm_ names and speaks for both.
static bool is_first(void) {
    const struct pm_root *volatile const found = &pm_root;
    return found == &pm_own_root;
}

// Everything that only has to happen before main: memory is served before this. It comes before all
// other libraries' constructors (-z initfirst), and before libc's own has set `environ`: so the
// handlers of fork that take our locks are registered first, and run when all others have taken
// theirs, which a thread may hold while it waits for one of ours.
__attribute__((constructor(101))) static void attach(int argc, char **argv, char **environment) {
    (void)argc;
    (void)argv;
    pm_life_start();
    pthread_atfork(pm_life_before_fork, pm_life_after_fork_in_parent, after_fork_in_child);
    if (is_first() && getauxval(AT_SECURE) == 0) {
        pm_options_read(environment);
        pm_limit_attach();
        pm_background_attach();
        pm_report_attach();
    }
}

__attribute__((destructor(101))) static void detach(void) {
    if (pm_entry_begin()) {
        pm_report_at_exit();
        pm_entry_end();
    }
}
