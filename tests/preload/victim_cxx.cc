// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// The victim in C++: `victim_cxx CASE`, the victim's side of cxx.def, and thread_local destructors.

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include <malloc.h>
#include <unistd.h>

#define CHECK(condition)                                                         \
    do {                                                                         \
        if (!(condition)) {                                                      \
            dprintf(2, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition); \
            _exit(1);                                                            \
        }                                                                        \
    } while (0)

namespace {

// Hidden from the compiler, which otherwise proves that these can't succeed.
volatile std::size_t too_large = PTRDIFF_MAX - 100;

const std::size_t sizes[] = {
    0, 1, 8, 16, 17, 100, 512, 1000, 5000, 20000, 100000, 300000, 5000000
};

bool is_aligned(const void *block, std::size_t alignment) {
    return reinterpret_cast<std::uintptr_t>(block) % alignment == 0;
}

void new_throws_bad_alloc() {
    for (int i = 0; i < 100; i++) {
        bool thrown = false;
        try {
            ::operator delete(::operator new(too_large));
        } catch (const std::bad_alloc &) {
            thrown = true;
        }
        CHECK(thrown);
        thrown = false;
        try {
            delete[] new char[too_large];
        } catch (const std::bad_alloc &) {
            thrown = true;
        }
        CHECK(thrown);
    }
}

int handler_calls;

// Gives up, as a handler that can release nothing must, at its third call.
void handler() {
    if (++handler_calls == 3) {
        std::set_new_handler(nullptr);
    }
}

void new_calls_the_handler_until_memory_is_there() {
    handler_calls = 0;
    std::set_new_handler(handler);
    bool thrown = false;
    try {
        ::operator delete(::operator new(too_large));
    } catch (const std::bad_alloc &) {
        thrown = true;
    }
    CHECK(thrown && handler_calls == 3);
}

void nothrow_new_gives_null() {
    CHECK(::operator new(too_large, std::nothrow) == nullptr);
    CHECK(::operator new[](too_large, std::nothrow) == nullptr);
    char *const fits = new (std::nothrow) char[100];
    CHECK(fits != nullptr);
    delete[] fits;
}

void nothrow_new_calls_the_handler() {
    handler_calls = 0;
    std::set_new_handler(handler);
    CHECK(::operator new(too_large, std::nothrow) == nullptr &&handler_calls == 3);
}

void zero_size_new_gives_unique_blocks() {
    void *const first = ::operator new(0);
    void *const second = ::operator new(0);
    CHECK(first != nullptr && second != nullptr && first != second);
    ::operator delete (first, std::size_t{ 0 });
    ::operator delete(second);
}

void sized_delete_takes_all_sizes() {
    for (const std::size_t size : sizes) {
        void *const block = ::operator new(size);
        std::memset(block, 1, size);
        ::operator delete(block, size);
        void *const array = ::operator new[](size);
        std::memset(array, 1, size);
        ::operator delete[](array, size);
    }
}

void aligned_new_aligns() {
    for (std::size_t alignment = 32; alignment <= 1 << 20; alignment *= 2) {
        const std::align_val_t align{ alignment };
        for (const std::size_t size : sizes) {
            void *const first = ::operator new(size, align);
            void *const second = ::operator new(size, align, std::nothrow);
            CHECK(is_aligned(first, alignment) && is_aligned(second, alignment));
            std::memset(first, 1, size);
            ::operator delete(first, size, align);
            ::operator delete(second, align);
        }
    }
}

void aligned_new_throws_bad_alloc() {
    bool thrown = false;
    try {
        ::operator delete (::operator new (too_large, std::align_val_t{ 4096 }),
                           std::align_val_t{ 4096 });
    } catch (const std::bad_alloc &) {
        thrown = true;
    }
    CHECK(thrown);
    CHECK(::operator new (too_large, std::align_val_t{ 64 }, std::nothrow) == nullptr);
}

void malloc_and_new_share_a_heap() {
    for (const std::size_t size : sizes) {
        void *const block = ::operator new(size);
        CHECK(malloc_usable_size(block) >= size);
        std::free(block);
        ::operator delete(std::malloc(size));
    }
}

void containers_keep_contents() {
    std::map<int, std::string> map;
    std::vector<std::unique_ptr<std::string>> vector;
    for (int i = 0; i < 20000; i++) {
        map[i * 7919 % 20011] =
            std::string(static_cast<std::size_t>(i % 300), 'x') + std::to_string(i);
        vector.push_back(std::make_unique<std::string>(map[i * 7919 % 20011]));
    }
    for (int i = 0; i < 20000; i++) {
        CHECK(*vector[static_cast<std::size_t>(i)] == map[i * 7919 % 20011]);
    }
}

// A destructor of a thread_local object runs late in a thread's life, and allocates again.
struct late {
    std::vector<std::string> texts;
    ~late() {
        for (int i = 0; i < 100; i++) {
            texts.push_back(std::string(static_cast<std::size_t>(i * 10), 'y'));
        }
        CHECK(texts.back().size() == 990);
    }
};

thread_local late first_late;
thread_local std::unique_ptr<late> second_late;

void thread_local_destructors_allocate() {
    for (int i = 0; i < 500; i++) {
        std::thread([] {
            first_late.texts.push_back("in use");
            second_late = std::make_unique<late>();
        }).join();
    }
    first_late.texts.push_back("in the main thread too");
}

struct {
    const char *name;
    void (*run)();
} const cases[] = {
#define CASE(name) { #name, name },
#include "cxx.def"
    { "thread_local_destructors_allocate", thread_local_destructors_allocate },
};

} // namespace

int main(int argc, char **argv) {
    for (const auto &known : cases) {
        if (argc > 1 && std::strcmp(known.name, argv[1]) == 0) {
            known.run();
            return 0;
        }
    }
    dprintf(2, "usage: victim_cxx CASE\n");
    return 2;
}
