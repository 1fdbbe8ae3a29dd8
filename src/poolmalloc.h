/* SPDX-License-Identifier: MIT
 * Copyright (c) the poolmalloc authors
 *
 * poolmalloc: memory in arenas, pools and blocks.
 *
 * These functions do what their namesakes without the prefix do (malloc(3), posix_memalign(3),
 * malloc_usable_size(3), ...), for programs that want this allocator beside any other: a block from
 * one of them goes back to one of them. Two libraries have them: libpoolmalloc, which also takes
 * the place of malloc in the whole program, and libpoolmalloc-api, which takes nobody's place.
 * Where both are loaded, the one that the dynamic linker finds first serves all calls of these.
 *
 * All functions but those of private heaps may be called by any threads at the same time, before
 * constructors and after destructors, and in the child of fork. Blocks may be freed by any thread.
 * Success leaves errno alone; free leaves it alone always. Sizes and alignments are in bytes. A
 * double free, an address that is no block, and a damaged free list end the program with a line on
 * stderr.
 */

#ifndef POOLMALLOC_H
#define POOLMALLOC_H

#include <stddef.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PM_VERSION_MAJOR 0
#define PM_VERSION_MINOR 1
#define PM_VERSION_PATCH 0

#if defined(__GNUC__)
#    define PM_API_SIZE(...) __attribute__((alloc_size(__VA_ARGS__), warn_unused_result))
#else
#    define PM_API_SIZE(...)
#endif

/* "major.minor.patch" of the library that is loaded. */
const char *pm_version(void);

/* A block of n bytes at a multiple of 16; n may be 0. NULL and ENOMEM when there is no memory or n
 * is over PTRDIFF_MAX, as from all functions here. */
void *pm_malloc(size_t n) PM_API_SIZE(1);

/* count * size bytes, all zero; ENOMEM also when the product overflows. */
void *pm_calloc(size_t count, size_t size) PM_API_SIZE(1, 2);

/* Changes the size of a block, moving it where it must; the contents stay up to the smaller size. A
 * NULL block is a malloc, n == 0 frees the block and returns NULL. After a failure the block is as
 * it was. The new block has the alignment of malloc. */
void *pm_realloc(void *block, size_t n) PM_API_SIZE(2);
void *pm_reallocarray(void *block, size_t count, size_t size) PM_API_SIZE(2, 3);

/* Frees a block of any of these functions; NULL does nothing. */
void pm_free(void *block);

/* C23: the same, for callers that know what they asked for. */
void pm_free_sized(void *block, size_t n);
void pm_free_aligned_sized(void *block, size_t align, size_t n);

/* A block of n bytes at a multiple of align. aligned_alloc: align is a power of two, else EINVAL.
 * memalign: align is rounded up to one. posix_memalign: a power of two and a multiple of
 * sizeof(void *), else it returns EINVAL; it returns 0 or the error, and errno stays. valloc and
 * pvalloc: the page, and pvalloc rounds n up to pages. */
void *pm_aligned_alloc(size_t align, size_t n) PM_API_SIZE(2);
void *pm_memalign(size_t align, size_t n) PM_API_SIZE(2);
int pm_posix_memalign(void **to, size_t align, size_t n);
void *pm_valloc(size_t n) PM_API_SIZE(1);
void *pm_pvalloc(size_t n);

/* Bytes that the program may use in a block: at least what it asked for. 0 for NULL. */
size_t pm_malloc_usable_size(const void *block);

/* What mallinfo2(3) tells, about this heap: arena and fordblks count pools and page runs, hblks and
 * hblkhd huge blocks, uordblks the bytes of blocks in use (rounded up), keepcost the free bytes
 * that are resident. */
struct pm_mallinfo2 {
    size_t arena, ordblks, smblks, hblks, hblkhd, usmblks, fsmblks, uordblks, fordblks, keepcost;
};
struct pm_mallinfo2 pm_mallinfo2(void);

/* Accepts the parameters of mallopt(3), which change nothing here: 1, or 0 for an unknown one. */
int pm_mallopt(int parameter, int value);

/* Gives free memory back to the system: 1 when there was some, 0 when not. `pad` is not used. */
int pm_malloc_trim(size_t pad);

/* Prints where the memory is: to stderr as text, to a stream as XML. malloc_info returns 0, or -1
 * and EINVAL when options is not 0. */
void pm_malloc_stats(void);
int pm_malloc_info(int options, FILE *to);

/* Private heaps.
 *
 * A private heap is an owner of blocks that the program makes, beside the heaps of the threads:
 * what belongs together is together in memory, can be visited, and goes in one call. It is a
 * handle, not a thread's: whoever uses it, one thread at a time, with the program's own
 * synchronisation between one and the next. Different private heaps, and malloc, are used at the
 * same time by different threads. All functions with a `heap` use it, but for pm_heap_context and
 * pm_heap_bytes; none is called with NULL unless it says so.
 *
 * A block is one of pm_malloc in every other respect: any thread may free it by pm_free, resize it
 * by pm_realloc and ask for its size, while another thread uses the heap. pm_free brings the block
 * back to its heap, which serves it again; pm_realloc moves what it has to move to the heap of the
 * calling thread.
 *
 * In the child of fork a private heap goes on. A signal handler may call malloc whatever it has
 * interrupted; it may use a private heap that the interrupted code does not use, and gets NULL and
 * ENOMEM where it would need more memory and has interrupted this library. */
typedef struct pm_heap pm_heap;

/* A heap without blocks, which takes less than 4 KiB of memory; `context` is the program's own.
 * NULL and ENOMEM without memory. */
pm_heap *pm_heap_new(void *context);

/* What pm_heap_new was given. Any thread, at any time of the heap's life. */
void *pm_heap_context(const pm_heap *heap);

/* What pm_malloc, pm_calloc and pm_realloc do, with blocks of this heap. NULL and ENOMEM when there
 * is no memory or a size is over PTRDIFF_MAX; then everything is as it was. realloc: a NULL block
 * is a malloc, n == 0 frees the block and returns NULL, and the block has to be one of this
 * heap. */
void *pm_heap_malloc(pm_heap *heap, size_t n) PM_API_SIZE(2);
void *pm_heap_calloc(pm_heap *heap, size_t count, size_t size) PM_API_SIZE(2, 3);
void *pm_heap_realloc(pm_heap *heap, void *block, size_t n) PM_API_SIZE(3);

/* What pm_aligned_alloc does, with a block of this heap: n bytes at a multiple of align, a power of
 * two, else NULL and EINVAL. pm_heap_realloc keeps the bytes, not the alignment. */
void *pm_heap_aligned_alloc(pm_heap *heap, size_t align, size_t n) PM_API_SIZE(3);

/* Frees a block of this heap, by whichever function it came; NULL does nothing. A block of another
 * heap ends the program with a line on stderr, as all that is no block does. free_sized is for
 * callers that know what they asked for. */
void pm_heap_free(pm_heap *heap, void *block);
void pm_heap_free_sized(pm_heap *heap, void *block, size_t n);

/* The same for a block of whichever private heap, which the caller uses. */
void pm_heap_free_any(void *block);

/* The private heap that a block belongs to; NULL for all other blocks, those of libc's malloc
 * included, for static data, and for NULL. A few loads, no lock. Any thread that has the block. */
pm_heap *pm_heap_of(const void *block);

/* The context of that heap; NULL where pm_heap_of says NULL. */
void *pm_heap_context_of(const void *block);

/* Calls visit(block, size, arg) once for each block in use, `size` being the bytes that the program
 * may use in it: first those in pools, a pool after the other and by ascending address inside of
 * each, then large ones. Stops when visit returns something else than 0. Returns what the last
 * visit returned, 0 without any. visit may read and write blocks and use other heaps, but neither
 * use this one nor free its blocks by other functions; nor does any other thread meanwhile. */
int pm_heap_walk(pm_heap *heap, int (*visit)(void *block, size_t size, void *arg), void *arg);

struct pm_heap_stats {
    size_t blocks;       /* in use */
    size_t bytes;        /* in these, rounded up to what the program may use */
    size_t large_blocks; /* of `blocks`, those outside of pools: over 64 KiB, or aligned to more */
    size_t large_bytes;  /* in these */
    size_t pools;        /* that the heap holds */
    size_t held;         /* what pm_heap_bytes tells */
};

/* Looks at every pool of the heap. What other threads free at the same time counts or not. */
void pm_heap_stats(const pm_heap *heap, struct pm_heap_stats *to);

/* Bytes of the pools and the large blocks of the heap; whole pools, with what of them is free or
 * was never touched. Reads two numbers. Any thread, at any time of the heap's life. */
size_t pm_heap_bytes(const pm_heap *heap);

/* Gives free memory of the heap back to the system, and what is free elsewhere with it: 1 when
 * there was some, 0 when not. */
int pm_heap_trim(pm_heap *heap);

/* Ends the heap and frees all its blocks, without a look at any: a step for each pool and each
 * large block. The handle is of no use then: until pm_heap_new returns the same address again, who
 * asks it for a block, frees one by it, walks, trims or ends it is stopped with a line that says
 * so. NULL does nothing, nor does a call from a signal handler that has interrupted this
 * library. */
void pm_heap_destroy(pm_heap *heap);

/* A section of the statistics that a library or program adds: after poolmalloc's own, as text and
 * as JSON (under "sections"). `write` is called as the statistics are written, by the thread that
 * asked for them, at any time; it tells its numbers by the functions below, and must not use
 * private heaps that another thread uses, nor wait for one. Names are UTF-8 without control
 * characters; "_" is written as a space in text. Under pm_malloc_stats and malloc_stats, malloc in
 * `write` is served as in a signal handler: by the emergency memory, which is small. The section
 * must last until the process ends; it is added once, by any thread. */
typedef struct pm_report pm_report;
struct pm_report_section {
    const char *name;
    void (*write)(pm_report *to, void *context);
    void *context;
    struct pm_report_section *next_; /* the library's */
};
void pm_report_add(struct pm_report_section *section);

/* For `write`: a number, or a group of numbers (and of groups, 8 within each other at most) from
 * begin to end. A group without an end ends with the section, an end without a group does
 * nothing. */
void pm_report_number(pm_report *to, const char *name, size_t value);
void pm_report_begin(pm_report *to, const char *name);
void pm_report_end(pm_report *to);

/* The object from which debuggers and other processes reach everything; its layout is versioned. */
struct pm_root;
extern const struct pm_root pm_root;

#undef PM_API_SIZE

#ifdef __cplusplus
}
#endif

#endif
