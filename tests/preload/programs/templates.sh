#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Copyright (c) the poolmalloc authors
#
# A C++ compiler on templates; the object's hash and the program's answer are printed.

set -eu

cat >templates.cc <<'CXX'
#include <algorithm>
#include <functional>
#include <iostream>
#include <map>
#include <regex>
#include <string>
#include <tuple>
#include <vector>
template <int N> struct chain { static int get(unsigned x) { return chain<N - 1>::get(x * 3 + N); } };
template <> struct chain<0> { static int get(unsigned x) { return x & 1023; } };
template <typename... T> auto sum(T... values) { return (values + ...); }
int main() {
    std::map<std::string, std::vector<std::tuple<int, std::string>>> map;
    for (int i = 0; i < 1000; i++)
        map[std::to_string(i % 37)].emplace_back(chain<200>::get(unsigned(i)), std::string(i % 50, 'a'));
    std::regex expression("([0-9]+)(a*)");
    std::function<int(int)> f = [&](int x) { return sum(x, 1, 2, int(map.size())); };
    int total = 0;
    for (auto &[key, list] : map) {
        std::sort(list.begin(), list.end());
        for (auto &[number, text] : list)
            total += f(number) + std::regex_match(std::to_string(number) + text, expression);
    }
    std::cout << total << "\n";
}
CXX
g++ -std=c++17 -O1 -c templates.cc -o templates.o
sha256sum templates.o
g++ templates.o -o templates
./templates
