// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Hashes, under one key a process, so that nobody outside can prepare colliding keys. Bytes go
// through SipHash with one round a word and three at the end (Aumasson and Bernstein, "SipHash: a
// fast short-input PRF", 2012), words through two products of 128 bits.
//
// The key is written before there are objects, and only read from then on.

#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/random.h>
#include <unistd.h>

#include "object/object.h"

#define VARIABLE "POOLOBJECT_HASHSEED"

typedef unsigned __int128 wide;

struct key {
    uint64_t bytes[2];
    uint64_t word[2];
};

struct sip {
    uint64_t a, b, c, d;
};

static struct key key;

// --- The key ----------------------------------------------------------------------------------

// Digits only: true and the number, or false.
static bool read_number(const char *text, uint64_t *to) {
    uint64_t number = 0;
    bool fits = *text != 0;
    for (; fits && *text != 0; text++) {
        const unsigned digit = (unsigned char)*text - (unsigned)'0';
        fits = digit <= 9 && !__builtin_mul_overflow(number, 10, &number) &&
               !__builtin_add_overflow(number, digit, &number);
    }
    *to = number;
    return fits;
}

// One to one, and 0 stays 0: the seed 0 is the key of zeros, as in Python.
static uint64_t spread(uint64_t number) {
    number = (number ^ number >> 31) * UINT64_C(0x9e6c63d0876a9a47);
    number = (number ^ number >> 29) * UINT64_C(0xd1b54a32d192ed03);
    return number ^ number >> 32;
}

static void make_key(uint64_t first, uint64_t second) {
    key.bytes[0] = spread(first);
    key.bytes[1] = spread(second);
    // Neither may be 0, which would make all products the same; the second is a factor, so odd.
    key.word[0] = spread(key.bytes[0] + 1);
    key.word[1] = spread(key.bytes[1] + 2) | 1;
}

// The kernel gives every process 16 random bytes at its start, and libc takes its own secrets from
// them: they are used where there is nothing else, and not as they stand.
static void read_secret(uint64_t secret[2]) {
    const size_t size = 2 * sizeof secret[0];
    if (getrandom(secret, size, GRND_NONBLOCK) == (ssize_t)size) {
        return;
    }
    secret[0] = (uintptr_t)secret;
    secret[1] = (uintptr_t)&po_hash_start;
    const void *const given = (const void *)getauxval(AT_RANDOM);
    if (given != NULL) {
        uint64_t more[2];
        memcpy(more, given, sizeof more);
        secret[0] += spread(more[0]);
        secret[1] += spread(more[0] + spread(more[1]));
    }
}

void po_hash_start(void) {
    const int error = errno;
    const char *const text = secure_getenv(VARIABLE);
    uint64_t seed;
    if (text != NULL && read_number(text, &seed)) {
        make_key(seed, seed);
        errno = error;
        return;
    }
    if (text != NULL && *text != 0) {
        dprintf(STDERR_FILENO,
                "poolobject: " VARIABLE "=%s: not a number from 0 to 18446744073709551615; "
                "hashes are random\n",
                text);
    }
    uint64_t secret[2];
    read_secret(secret);
    make_key(secret[0], secret[1]);
    errno = error;
}

// --- Bytes ------------------------------------------------------------------------------------

static inline uint64_t rotate(uint64_t word, unsigned by) {
    return word << by | word >> (64 - by);
}

static inline void sip_round(struct sip *sip) {
    sip->a += sip->b;
    sip->c += sip->d;
    sip->b = rotate(sip->b, 13) ^ sip->a;
    sip->d = rotate(sip->d, 16) ^ sip->c;
    sip->a = rotate(sip->a, 32);
    sip->c += sip->b;
    sip->a += sip->d;
    sip->b = rotate(sip->b, 17) ^ sip->c;
    sip->d = rotate(sip->d, 21) ^ sip->a;
    sip->c = rotate(sip->c, 32);
}

static inline void sip_word(struct sip *sip, uint64_t word) {
    sip->d ^= word;
    sip_round(sip);
    sip->a ^= word;
}

static inline uint64_t load8(const unsigned char *at) {
    uint64_t word;
    memcpy(&word, at, sizeof word);
    return le64toh(word);
}

static inline uint64_t load4(const unsigned char *at) {
    uint32_t word;
    memcpy(&word, at, sizeof word);
    return le32toh(word);
}

// The last n % 8 of n bytes that start at `data`, the first of them lowest. Loads overlap, so that
// there is no loop.
static inline uint64_t load_rest(const unsigned char *data, size_t n) {
    const unsigned rest = n % 8;
    if (rest == 0) {
        return 0;
    }
    if (n >= 8) {
        return load8(data + n - 8) >> (64 - 8 * rest);
    }
    if (rest >= 4) {
        return load4(data) | load4(data + rest - 4) << (8 * (rest - 4));
    }
    return (uint64_t)data[0] | (uint64_t)data[rest / 2] << (8 * (rest / 2)) |
           (uint64_t)data[rest - 1] << (8 * (rest - 1));
}

uint64_t po_hash_bytes(const void *data, size_t n) {
    struct sip sip = {
        key.bytes[0] ^ UINT64_C(0x736f6d6570736575),
        key.bytes[1] ^ UINT64_C(0x646f72616e646f6d),
        key.bytes[0] ^ UINT64_C(0x6c7967656e657261),
        key.bytes[1] ^ UINT64_C(0x7465646279746573),
    };
    const unsigned char *const bytes = data;
    for (size_t i = 0; i + 8 <= n; i += 8) {
        sip_word(&sip, load8(bytes + i));
    }
    sip_word(&sip, load_rest(bytes, n) | (uint64_t)n << 56);
    sip.c ^= 0xff;
    sip_round(&sip);
    sip_round(&sip);
    sip_round(&sip);
    const uint64_t hash = sip.a ^ sip.b ^ sip.c ^ sip.d;
    return hash + (hash == 0);
}

// --- Words ------------------------------------------------------------------------------------

uint64_t po_hash_word(uint64_t word) {
    const wide first = (wide)(word ^ key.word[0]) * key.word[1];
    const wide second =
        (wide)((uint64_t)first ^ key.word[1]) * ((uint64_t)(first >> 64) ^ key.word[0]);
    const uint64_t hash = (uint64_t)second ^ (uint64_t)(second >> 64);
    return hash + (hash == 0);
}
