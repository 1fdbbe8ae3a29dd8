// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// A program in C++ with a new and a delete of its own: `victim_cxx_own CASE`. What the standard
// leads to these two must come to them, of all libraries' operators ([new.delete]).

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

#include <unistd.h>

#define CHECK(condition)                                                         \
    do {                                                                         \
        if (!(condition)) {                                                      \
            dprintf(2, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition); \
            _exit(1);                                                            \
        }                                                                        \
    } while (0)

static int made, ended;
static bool refuses;

void *operator new(std::size_t size) {
    if (refuses) {
        throw std::bad_alloc();
    }
    made++;
    return std::malloc(size + 1);
}

void operator delete(void *block) noexcept {
    ended++;
    std::free(block);
}

static void forms_lead_to_the_programs_own() {
    int *const array = new int[3];
    CHECK(made == 1);
    delete[] array;
    CHECK(ended == 1);
    void *const block = ::operator new(100);
    ::operator delete (block, std::size_t{ 100 });
    CHECK(made == 2 && ended == 2);
    ::operator delete[](::operator new[](50), std::size_t{ 50 });
    CHECK(made == 3 && ended == 3);
    ::operator delete(::operator new(20, std::nothrow), std::nothrow);
    CHECK(made == 4 && ended == 4);
    ::operator delete[](::operator new[](20, std::nothrow), std::nothrow);
    CHECK(made == 5 && ended == 5);
}

static void nothrow_forms_catch_what_it_throws() {
    refuses = true;
    CHECK(::operator new(20, std::nothrow) == nullptr);
    CHECK(::operator new[](20, std::nothrow) == nullptr);
    bool thrown = false;
    try {
        ::operator delete[](::operator new[](20));
    } catch (const std::bad_alloc &) {
        thrown = true;
    }
    CHECK(thrown);
}

static void aligned_forms_stay_here() {
    const std::align_val_t align{ 256 };
    ::operator delete(::operator new(100, align), align);
    ::operator delete[](::operator new[](100, align), 100, align);
    ::operator delete(::operator new(100, align, std::nothrow), align, std::nothrow);
    CHECK(made == 0 && ended == 0);
}

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        void (*run)();
    } cases[] = {
        { "forms_lead_to_the_programs_own", forms_lead_to_the_programs_own },
        { "nothrow_forms_catch_what_it_throws", nothrow_forms_catch_what_it_throws },
        { "aligned_forms_stay_here", aligned_forms_stay_here },
    };
    for (const auto &known : cases) {
        if (argc > 1 && std::strcmp(known.name, argv[1]) == 0) {
            known.run();
            return 0;
        }
    }
    dprintf(2, "usage: victim_cxx_own CASE\n");
    return 2;
}
