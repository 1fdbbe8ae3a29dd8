/* SPDX-License-Identifier: MIT
 * Copyright (c) the poolmalloc authors
 *
 * poolmalloc: memory in arenas, pools and blocks.
 *
 * These functions do what their namesakes without the prefix do (malloc(3), posix_memalign(3),
 * malloc_usable_size(3), ...), for programs that want this allocator beside any other: a block from
 * one of them goes back to one of them. Two libraries have them: libpoolmalloc, which also takes the
 * place of malloc in the whole program, and libpoolmalloc-api, which takes nobody's place. Where
 * both are loaded, one of them serves all.
 *
 * All functions may be called by any threads at the same time, before constructors and after
 * destructors, and in the child of fork. Blocks may be freed by any thread. Success leaves errno
 * alone; free leaves it alone always. Sizes and alignments are in bytes. A double free, an address
 * that is no block, and a damaged free list end the program with a line on stderr.
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

/* Changes the size of a block, moving it where it must; the contents stay up to the smaller size.
 * A NULL block is a malloc, n == 0 frees the block and returns NULL. After a failure the block is as
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
 * hblkhd huge blocks, uordblks the bytes of blocks in use (rounded up), keepcost the free bytes that
 * are resident. */
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

/* The object from which debuggers and other processes reach everything; its layout is versioned. */
struct pm_root;
extern const struct pm_root pm_root;

#undef PM_API_SIZE

#ifdef __cplusplus
}
#endif

#endif
