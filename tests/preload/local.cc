// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// A library in C++ that a program in C opens for itself alone: nobody else sees its C++ library.

#include <cstddef>
#include <cstdint>
#include <new>

static volatile std::size_t too_large = PTRDIFF_MAX - 100;

extern "C" int local_throws(void);

extern "C" int local_throws(void) {
    int thrown = 0;
    try {
        ::operator delete(::operator new(too_large));
    } catch (const std::bad_alloc &) {
        thrown++;
    }
    try {
        ::operator delete (::operator new (too_large, std::align_val_t{ 64 }),
                           std::align_val_t{ 64 });
    } catch (const std::bad_alloc &) {
        thrown++;
    }
    try {
        delete[] new char[too_large];
    } catch (const std::bad_alloc &) {
        thrown++;
    }
    return thrown + (::operator new(too_large, std::nothrow) == nullptr);
}
