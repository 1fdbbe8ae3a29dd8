// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// json: reads JSON, makes objects of it, and writes them as json.dumps of Python does.
//
//     cc json.c -o json $(pkg-config --cflags --libs poolobject)
//     ./json file.json
//
// What is worth a look: nothing here recurses, so no text can exhaust the stack; the only
// references that the reader owns are the outermost value and a key that waits for its value, so
// that every way out, errors included, gives up these two and is done.

#include <errno.h>
#include <poolobject.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

// Deeper texts are refused.
#define LEVELS_MAX 10000

static void help(FILE *to) {
    fputs(
        "usage: json [-t] [FILE]\n"
        "Reads JSON from FILE, or from standard input, and writes it on one line, as Python does.\n"
        "  -t  tell on standard error the processor time, and the peak of resident memory\n"
        "Exit status: 0, 1 when the text can't be read, 2 when the call is wrong.\n",
        to);
}

// --- Reading -------------------------------------------------------------------------------------

struct reader {
    po_state *state;
    char *at;          // a 0 stands at the end; texts are decoded where they lie
    const char *end;   // there
    const char *line;  // where the current line starts
    size_t lines;      // before it
    const char *wrong; // what is wrong at `at`; NULL: the library's last error
    po_object *root;   // owned
    po_object *key;    // owned; of the value that comes next in a dict
    size_t levels;
    po_object *level[LEVELS_MAX]; // what is not closed; borrowed: the root holds it
};

static int refuse(struct reader *reader, const char *wrong) {
    reader->wrong = wrong;
    return -1;
}

static void skip_space(struct reader *reader) {
    for (;; reader->at++) {
        if (*reader->at == '\n') {
            reader->lines++;
            reader->line = reader->at + 1;
        } else if (*reader->at != ' ' && *reader->at != '\t' && *reader->at != '\r') {
            return;
        }
    }
}

static bool accept(struct reader *reader, const char *word) {
    const size_t n = strlen(word);
    const bool here = strncmp(reader->at, word, n) == 0;
    reader->at += here ? n : 0;
    return here;
}

// Puts a value where it belongs; the reference is taken.
static int add_take(struct reader *reader, po_object *value) {
    if (value == NULL) {
        return -1;
    }
    if (reader->levels == 0) {
        reader->root = value;
        return 0;
    }
    po_object *const holder = reader->level[reader->levels - 1];
    if (po_is(holder, &po_list_type)) {
        return po_list_append_take(holder, value);
    }
    // A key that comes twice keeps its place, and the last value wins.
    const int result = po_dict_set(holder, reader->key, value);
    po_decref(value);
    po_clear(&reader->key);
    return result;
}

static int open_level(struct reader *reader, po_object *holder) {
    if (reader->levels == LEVELS_MAX) {
        po_decref(holder);
        return refuse(reader, "nested too deep");
    }
    if (add_take(reader, holder) < 0) {
        return -1;
    }
    reader->level[reader->levels++] = holder;
    return 1;
}

static bool is_digit(char letter) {
    return letter >= '0' && letter <= '9';
}

static int read_number(struct reader *reader) {
    const char *const first = reader->at + (*reader->at == '-');
    if (!is_digit(first[0]) || (first[0] == '0' && is_digit(first[1]))) {
        return refuse(reader, "a value was expected");
    }
    char *end, *end_of_float;
    errno = 0;
    const long long value = strtoll(reader->at, &end, 10);
    if ((*end == '.' && is_digit(end[1])) || *end == 'e' || *end == 'E') {
        const double number = strtod(reader->at, &end_of_float);
        if (end_of_float != end) {
            reader->at = end_of_float;
            return add_take(reader, po_float(reader->state, number));
        }
    }
    if (errno == ERANGE) {
        return refuse(reader, "the integer does not fit 64 bits");
    }
    reader->at = end;
    return add_take(reader, po_int(reader->state, value));
}

// Four hexadecimal digits: their value, or -1.
static long read_hex(const char *at) {
    char digits[5] = "";
    strncat(digits, at, 4);
    return strspn(digits, "0123456789abcdefABCDEF") == 4 ? strtol(digits, NULL, 16) : -1;
}

// Writes a code point as UTF-8; returns where it ends.
static char *put_point(char *to, unsigned long point) {
    if (point < 0x80) {
        *to++ = (char)point;
        return to;
    }
    const unsigned more = point < 0x800 ? 1 : point < 0x10000 ? 2 : 3;
    *to++ = (char)((0xFF00U >> (more + 1) & 0xFF) | point >> 6 * more);
    for (unsigned i = more; i-- > 0;) {
        *to++ = (char)(0x80 | (point >> 6 * i & 0x3F));
    }
    return to;
}

// What follows a \u, with its other half where it is the first of two.
static int read_point(struct reader *reader, char **to) {
    long point = read_hex(reader->at);
    if (point < 0) {
        return refuse(reader, "four hexadecimal digits were expected");
    }
    reader->at += 4;
    if (point >= 0xD800 && point < 0xE000) {
        const long low = accept(reader, "\\u") ? read_hex(reader->at) : -1;
        if (point >= 0xDC00 || low < 0xDC00 || low >= 0xE000) {
            return refuse(reader, "half of a surrogate pair is no text");
        }
        point = 0x10000 + ((point - 0xD800) << 10) + (low - 0xDC00);
        reader->at += 4;
    }
    *to = put_point(*to, (unsigned long)point);
    return 0;
}

static int read_escape(struct reader *reader, char **to) {
    static const char from[] = "\"\\/bfnrt", into[] = "\"\\/\b\f\n\r\t";
    const char *const found = *reader->at != 0 ? strchr(from, *reader->at) : NULL;
    if (found != NULL) {
        reader->at++;
        *(*to)++ = into[found - from];
        return 0;
    }
    return accept(reader, "u") ? read_point(reader, to) : refuse(reader, "there is no such escape");
}

// A text, behind its opening quote, by po_str or po_str_intern: a new object. What an escape stands
// for is never longer than the escape.
static po_object *read_str(struct reader *reader,
                           po_object *(*make)(po_state *state, const char *utf8, size_t n)) {
    char *const start = reader->at, *to = start;
    while (*reader->at != '"') {
        const unsigned char byte = (unsigned char)*reader->at;
        if (byte < ' ') {
            refuse(reader, "the text does not end before a control character or the end");
            return NULL;
        }
        reader->at++;
        if (byte != '\\') {
            *to++ = (char)byte;
        } else if (read_escape(reader, &to) < 0) {
            return NULL;
        }
    }
    reader->at++;
    return make(reader->state, start, (size_t)(to - start));
}

// A key and its colon. The same key in many dicts is one object.
static int read_key(struct reader *reader) {
    skip_space(reader);
    if (!accept(reader, "\"")) {
        return refuse(reader, "a key in double quotes was expected");
    }
    reader->key = read_str(reader, po_str_intern);
    if (reader->key == NULL) {
        return -1;
    }
    skip_space(reader);
    return accept(reader, ":") ? 1 : refuse(reader, "':' was expected");
}

// The words, with Python's additions. The constants are immortal: they need no counting.
static int read_word(struct reader *reader) {
    static const struct {
        const char *word;
        po_object *value; // NULL: a float
        double number;
    } words[] = {
        { "null", PO_NONE, 0 },
        { "true", PO_TRUE, 0 },
        { "false", PO_FALSE, 0 },
        { "NaN", NULL, __builtin_nan("") },
        { "Infinity", NULL, __builtin_inf() },
        { "-Infinity", NULL, -__builtin_inf() },
    };
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (accept(reader, words[i].word)) {
            po_object *const value = words[i].value;
            return add_take(reader,
                            value != NULL ? value : po_float(reader->state, words[i].number));
        }
    }
    return read_number(reader);
}

// 0 after a value, 1 after the start of a list or dict, -1.
static int read_value(struct reader *reader) {
    skip_space(reader);
    if (accept(reader, "{")) {
        return open_level(reader, po_dict(reader->state));
    }
    if (accept(reader, "[")) {
        return open_level(reader, po_list(reader->state));
    }
    if (accept(reader, "\"")) {
        return add_take(reader, read_str(reader, po_str));
    }
    return read_word(reader);
}

// What stands between two values: 1 when one is to come, 0 when the outermost has ended, -1.
static int read_between(struct reader *reader, bool opened) {
    for (; reader->levels > 0; opened = false) {
        const bool is_dict = po_is(reader->level[reader->levels - 1], &po_dict_type);
        skip_space(reader);
        if (accept(reader, is_dict ? "}" : "]")) {
            reader->levels--;
        } else if (opened || accept(reader, ",")) {
            return is_dict ? read_key(reader) : 1;
        } else {
            return refuse(reader, is_dict ? "',' or '}' was expected" : "',' or ']' was expected");
        }
    }
    return 0;
}

static int read_all(struct reader *reader) {
    for (int more = 1; more == 1;) {
        const int opened = read_value(reader);
        if (opened < 0 || (more = read_between(reader, opened)) < 0) {
            return -1;
        }
    }
    skip_space(reader);
    return reader->at == reader->end ? 0 : refuse(reader, "something follows the value");
}

// Makes objects of a text, which is changed on the way: a new reference, or NULL after a message.
static po_object *read_json(po_state *state, const char *name, char *text, size_t n) {
    static struct reader reader; // too large for some stacks
    reader = (struct reader){ .state = state, .at = text, .end = text + n, .line = text };
    if (read_all(&reader) < 0) {
        fprintf(stderr, "json: %s:%zu:%zu: %s\n", name, reader.lines + 1,
                (size_t)(reader.at - reader.line) + 1,
                reader.wrong != NULL ? reader.wrong : po_error_last().text);
        po_clear(&reader.root);
        po_clear(&reader.key);
    }
    return reader.root;
}

// --- Writing -------------------------------------------------------------------------------------

struct level {
    po_object *holder; // borrowed
    size_t at;         // the next item, or the position in the dict
};

static void write_str(const po_object *str, FILE *to) {
    static const char from[] = "\"\\\b\f\n\r\t", into[] = "\"\\bfnrt";
    const char *const data = po_str_data(str);
    fputc('"', to);
    for (size_t i = 0; i < po_str_size(str); i++) {
        const char *const found = data[i] != 0 ? strchr(from, data[i]) : NULL;
        if (found != NULL) {
            fprintf(to, "\\%c", into[found - from]);
        } else if ((unsigned char)data[i] < ' ') {
            fprintf(to, "\\u%04x", (unsigned)data[i]);
        } else {
            fputc(data[i], to);
        }
    }
    fputc('"', to);
}

// All but lists and dicts.
static int write_atom(po_state *state, po_object *value, FILE *to) {
    if (po_is(value, &po_str_type)) {
        write_str(value, to);
        return 0;
    }
    if (!po_is(value, &po_float_type) && !po_is(value, &po_int_type)) {
        fputs(value == PO_NONE ? "null" : value == PO_TRUE ? "true" : "false", to);
        return 0;
    }
    PO_AUTO po_object *text = po_repr(state, value);
    if (text == NULL) {
        return -1;
    }
    const char *const digits = po_str_data(text);
    fputs(strcmp(digits, "nan") == 0    ? "NaN"
          : strcmp(digits, "inf") == 0  ? "Infinity"
          : strcmp(digits, "-inf") == 0 ? "-Infinity"
                                        : digits,
          to);
    return 0;
}

// The next value of a list or dict, borrowed, after what stands before it; NULL at the end.
static po_object *write_next(struct level *level, FILE *to) {
    const bool is_first = level->at == 0;
    po_object *key = NULL, *value = NULL;
    if (po_is(level->holder, &po_dict_type)) {
        po_dict_next(level->holder, &level->at, &key, &value);
    } else if (level->at < po_list_size(level->holder)) {
        value = po_list_at(level->holder, level->at++);
    }
    if (value != NULL) {
        fputs(is_first ? "" : ", ", to);
    }
    if (key != NULL) {
        write_str(key, to);
        fputs(": ", to);
    }
    return value;
}

// 0, or -1 and po_error_last tells why; a failed write shows in the stream.
static int write_json(po_state *state, po_object *value, FILE *to) {
    static struct level level[LEVELS_MAX];
    size_t levels = 0;
    do {
        const bool is_dict = value != NULL && po_is(value, &po_dict_type);
        if (value == NULL) {
            levels--;
            fputc(po_is(level[levels].holder, &po_dict_type) ? '}' : ']', to);
        } else if (is_dict || po_is(value, &po_list_type)) {
            fputc(is_dict ? '{' : '[', to);
            level[levels++] = (struct level){ .holder = value };
        } else if (write_atom(state, value, to) < 0) {
            return -1;
        }
        value = levels > 0 ? write_next(&level[levels - 1], to) : NULL;
    } while (levels > 0);
    fputc('\n', to);
    return 0;
}

// --- The program ---------------------------------------------------------------------------------

// The whole of a file, a 0 behind it; NULL after a message. A 0 within it ends it too, and is then
// part of what was read, so that it is refused.
static char *read_file(const char *name, size_t *size) {
    errno = 0;
    FILE *const from = strcmp(name, "-") == 0 ? stdin : fopen(name, "r");
    char *text = NULL;
    size_t room = 0;
    const ssize_t n = from != NULL ? getdelim(&text, &room, 0, from) : -1;
    if (n < 0) {
        fprintf(stderr, "json: %s: %s\n", name, errno != 0 ? strerror(errno) : "empty");
        free(text);
        text = NULL;
    }
    if (from != NULL) {
        fclose(from);
    }
    *size = (size_t)n;
    return text;
}

static double now_ms(void) {
    return (double)clock() * 1e3 / CLOCKS_PER_SEC;
}

// The figure of getrusage may be that of the program that started this one.
static long peak_kib(void) {
    long peak = -1;
    FILE *const status = fopen("/proc/self/status", "r");
    if (status != NULL) {
        while (fscanf(status, "VmHWM: %ld", &peak) == 0 && fscanf(status, "%*[^\n]\n") == 0) {
        }
        fclose(status);
    }
    return peak;
}

static int run(po_state *state, const char *name, char *text, size_t n, bool tell) {
    const double start = now_ms();
    PO_AUTO po_object *value = read_json(state, name, text, n);
    const double middle = now_ms();
    if (value == NULL) {
        return 1;
    }
    const bool written = write_json(state, value, stdout) == 0;
    if (!written || fflush(stdout) != 0) {
        fprintf(stderr, "json: %s\n", written ? strerror(errno) : po_error_last().text);
        return 1;
    }
    if (tell) {
        fprintf(stderr, "json: read in %.1f ms, written in %.1f ms, peak resident %ld KiB\n",
                middle - start, now_ms() - middle, peak_kib());
    }
    return 0;
}

int main(int count, char **arguments) {
    const bool tell = count > 1 && strcmp(arguments[1], "-t") == 0;
    const char *const name = count > 1 + tell ? arguments[1 + tell] : "-";
    if (strcmp(name, "-h") == 0 || strcmp(name, "--help") == 0) {
        help(stdout);
        return 0;
    }
    if (count > 2 + tell || (name[0] == '-' && name[1] != 0)) {
        help(stderr);
        return 2;
    }
    size_t n;
    char *const text = read_file(name, &n);
    if (text == NULL) {
        return 1;
    }
    po_state *const state = po_state_new();
    int result = 1;
    if (state != NULL) {
        result = run(state, name, text, n, tell);
    } else {
        fprintf(stderr, "json: %s\n", po_error_last().text);
    }
    const size_t left = po_state_free(state, STDERR_FILENO);
    free(text);
    return left == 0 ? result : 1;
}
