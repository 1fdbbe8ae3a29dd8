// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// lisp: a small Lisp. A function with a name refers to the scope that it was made in, and that
// scope refers to the function: a cycle, which reference counts alone would keep for ever.
//
//     cc lisp.c -o lisp $(pkg-config --cflags --libs poolobject)
//     echo "(define (twice x) (* 2 x)) (twice 21)" | ./lisp
//
// Values are integers, symbols (interned strs), #t and #f, functions, and lists: cells, with the
// empty tuple at the end. All functions that return objects return new references, or NULL after a
// failure, but for item(), whose result is borrowed.

#include <errno.h>
#include <inttypes.h>
#include <poolobject.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// Forms within forms, and calls that are not the last thing that a function does.
#define DEPTH_MAX 1000

struct lisp {
    po_state *state;
    po_object *global; // scope
    const char *at;    // in the source
    unsigned line, depth;
    char wrong[128]; // what is wrong; empty: the library's last error
};

static void *fail(struct lisp *lisp, const char *format, ...) {
    va_list more;
    va_start(more, format);
    vsnprintf(lisp->wrong, sizeof lisp->wrong, format, more);
    va_end(more);
    return NULL;
}

// --- Types ---------------------------------------------------------------------------------------

// Cells, scopes and functions have two references each, so that one base serves them: a cell its
// first and the rest, a scope its dict and the scope around it or NULL, a function (parameters form
// ...) and its scope.
struct pair {
    PO_HEAD;
    po_object *first, *second;
};

static struct pair *pair_of(const po_object *object) {
    return (struct pair *)object;
}

static int traverse(const po_object *self, po_visit visit, void *argument) {
    PO_VISIT(pair_of(self)->first);
    PO_VISIT(pair_of(self)->second);
    return 0;
}

static void clear(po_object *self) {
    po_clear(&pair_of(self)->first);
    po_clear(&pair_of(self)->second);
}

static int repr_cell(po_object *self, po_text *to);

#define SIZE .size = sizeof(struct pair)

static po_type pair_type = { .name = "pair", SIZE, .traverse = traverse, .clear = clear };
static po_type cell_type = { .name = "cell", SIZE, .base = &pair_type, .repr = repr_cell };
static po_type scope_type = { .name = "scope", SIZE, .base = &pair_type };
static po_type function_type = { .name = "function", SIZE, .base = &pair_type };

// Without a first part, which could not be made, there is no pair.
static po_object *pair(struct lisp *lisp, po_type *type, po_object *first, po_object *second) {
    po_object *const made = first != NULL ? po_new(lisp->state, type) : NULL;
    if (made != NULL) {
        po_set(&pair_of(made)->first, first);
        po_set(&pair_of(made)->second, second);
    }
    return made;
}

// What C code does. One of the three is not NULL.
struct row {
    const char *name;
    size_t least, most; // how much follows the name
    po_object *(*value)(struct lisp *lisp, po_object *rest, po_object *scope);
    po_object *(*form)(struct lisp *lisp, po_object *rest,
                       po_object **scope); // what to evaluate next
    po_object *(*call)(struct lisp *lisp, const char *name, po_object *values);
};

// Refers to no objects, so it has no slots.
struct builtin {
    PO_HEAD;
    const struct row *row;
};
static po_type builtin_type = { .name = "builtin", .size = sizeof(struct builtin) };

static bool is_cell(const po_object *object) {
    return po_is(object, &cell_type);
}

static size_t length(const po_object *list) {
    size_t n = 0;
    for (; is_cell(list); list = pair_of(list)->second) {
        n++;
    }
    return n;
}

static po_object *item(const po_object *list, size_t index) {
    for (; index > 0; index--) {
        list = pair_of(list)->second;
    }
    return pair_of(list)->first;
}

// --- Reading and printing ------------------------------------------------------------------------

static char skip_space(struct lisp *lisp) {
    for (bool comment = false; *lisp->at != 0; lisp->at++) {
        comment = *lisp->at == ';' || (comment && *lisp->at != '\n');
        if (!comment && strchr(" \t\r\n", *lisp->at) == NULL) {
            break;
        }
        lisp->line += *lisp->at == '\n';
    }
    return *lisp->at;
}

static po_object *read_form(struct lisp *lisp);

// Behind the parenthesis.
static po_object *read_list(struct lisp *lisp) {
    PO_AUTO po_object *list = po_tuple(lisp->state, 0, NULL);
    for (po_object **end = &list; skip_space(lisp) != ')'; end = &pair_of(*end)->second) {
        PO_AUTO po_object *form = read_form(lisp);
        po_object *const cell = pair(lisp, &cell_type, form, *end);
        if (cell == NULL) {
            return NULL;
        }
        po_set_take(end, cell);
    }
    lisp->at++;
    return po_incref(list);
}

static po_object *read_quoted(struct lisp *lisp) {
    PO_AUTO po_object *quote = po_str_intern(lisp->state, "quote", 5);
    PO_AUTO po_object *form = read_form(lisp);
    PO_AUTO po_object *rest = pair(lisp, &cell_type, form, po_tuple(lisp->state, 0, NULL));
    return rest != NULL ? pair(lisp, &cell_type, quote, rest) : NULL;
}

// An integer, #t, #f, or a symbol.
static po_object *read_word(struct lisp *lisp) {
    const char *const word = lisp->at;
    const size_t n = strcspn(word, " \t\r\n();'");
    char *end;
    errno = 0;
    const long long value = strtoll(word, &end, 10);
    lisp->at += n;
    if (end == lisp->at) {
        return errno == 0 ? po_int(lisp->state, value) : fail(lisp, "an integer above 64 bits");
    }
    if (word[0] == '#' && n == 2 && (word[1] == 't' || word[1] == 'f')) {
        return po_bool(word[1] == 't');
    }
    return po_str_intern(lisp->state, word, n);
}

static po_object *read_form(struct lisp *lisp) {
    po_object *form = NULL;
    const char first = skip_space(lisp);
    if (first == 0 || first == ')') {
        return fail(lisp, first == 0 ? "a parenthesis is missing" : "a parenthesis too many");
    }
    if (++lisp->depth > DEPTH_MAX) {
        fail(lisp, "nested too deep");
    } else if (first == '(' || first == '\'') {
        lisp->at++;
        form = first == '(' ? read_list(lisp) : read_quoted(lisp);
    } else {
        form = read_word(lisp);
    }
    lisp->depth--;
    return form;
}

// What is written otherwise than po_repr would; else NULL.
static const char *word_for(const po_object *value) {
    return po_is(value, &po_str_type)     ? po_str_data(value)
           : po_is(value, &po_tuple_type) ? "()"
           : value == PO_TRUE             ? "#t"
           : value == PO_FALSE            ? "#f"
                                          : NULL;
}

static int add(po_text *to, po_object *value) {
    const char *const word = word_for(value);
    return word != NULL ? po_text_add(to, word, strlen(word)) : po_text_repr(to, value);
}

static int repr_cell(po_object *self, po_text *to) {
    const char *before = "(";
    for (; is_cell(self); self = pair_of(self)->second, before = " ") {
        if (po_text_add(to, before, 1) < 0 || add(to, pair_of(self)->first) < 0) {
            return -1;
        }
    }
    const bool is_list = po_is(self, &po_tuple_type);
    return !is_list && (po_text_add(to, " . ", 3) < 0 || add(to, self) < 0)
               ? -1
               : po_text_add(to, ")", 1);
}

// A line on standard output.
static bool show(struct lisp *lisp, po_object *value) {
    const char *const word = word_for(value);
    PO_AUTO po_object *text = word == NULL ? po_repr(lisp->state, value) : NULL;
    return (word != NULL || text != NULL) && puts(word != NULL ? word : po_str_data(text)) >= 0;
}

// --- Evaluation ----------------------------------------------------------------------------------

static po_object *look_up(struct lisp *lisp, po_object *symbol, po_object *scope) {
    po_object *value;
    for (; scope != NULL; scope = pair_of(scope)->second) {
        const int found = po_dict_get(pair_of(scope)->first, symbol, &value);
        if (found != 0) {
            return found > 0 ? po_incref(value) : NULL;
        }
    }
    return fail(lisp, "'%s' has no value", po_str_data(symbol));
}

// An empty scope within another, or within none.
static po_object *scope_in(struct lisp *lisp, po_object *outer) {
    PO_AUTO po_object *values = po_dict(lisp->state);
    return pair(lisp, &scope_type, values, outer);
}

// False also without a scope or a value, which could not be made.
static bool bind(struct lisp *lisp, po_object *scope, po_object *symbol, po_object *value) {
    if (scope == NULL || value == NULL) {
        return false;
    }
    if (!po_is(symbol, &po_str_type)) {
        return fail(lisp, "only a symbol can have a value") != NULL;
    }
    return po_dict_set(pair_of(scope)->first, symbol, value) == 0;
}

static po_object *step(struct lisp *lisp, po_object *form, po_object **scope, po_object **value);

static po_object *eval(struct lisp *lisp, po_object *form, po_object *scope) {
    PO_AUTO po_object *inner = po_incref(scope);
    po_object *value = NULL, *next = NULL;
    if (++lisp->depth > DEPTH_MAX) {
        fail(lisp, "nested too deep");
    } else {
        next = step(lisp, form, &inner, &value);
    }
    while (next != NULL) {
        PO_AUTO po_object *now = next;
        next = step(lisp, now, &inner, &value);
    }
    lisp->depth--;
    return value;
}

// All but the last form, which is evaluated next: such calls take no stack.
static po_object *eval_body(struct lisp *lisp, po_object *body, po_object **scope) {
    for (; is_cell(pair_of(body)->second); body = pair_of(body)->second) {
        PO_AUTO po_object *value = eval(lisp, pair_of(body)->first, *scope);
        if (value == NULL) {
            return NULL;
        }
    }
    return po_incref(pair_of(body)->first);
}

static po_object *eval_all(struct lisp *lisp, po_object *forms, po_object *scope) {
    PO_AUTO po_object *values = po_list(lisp->state);
    for (; values != NULL && is_cell(forms); forms = pair_of(forms)->second) {
        po_object *const value = eval(lisp, pair_of(forms)->first, scope);
        if (value == NULL || po_list_append_take(values, value) < 0) {
            return NULL;
        }
    }
    return values != NULL ? po_incref(values) : NULL;
}

// What to evaluate next in a scope of the function's own.
static po_object *enter(struct lisp *lisp, po_object *function, po_object *values,
                        po_object **scope) {
    po_object *const lambda = pair_of(function)->first;
    const po_object *names = pair_of(lambda)->first;
    if (length(names) != po_list_size(values)) {
        return fail(lisp, "%zu values for %zu parameters", po_list_size(values), length(names));
    }
    po_object *const inner = scope_in(lisp, pair_of(function)->second);
    po_set_take(scope, inner);
    for (size_t i = 0; i < po_list_size(values); i++, names = pair_of(names)->second) {
        if (!bind(lisp, inner, pair_of(names)->first, po_list_at(values, i))) {
            return NULL;
        }
    }
    return inner != NULL ? eval_body(lisp, pair_of(lambda)->second, scope) : NULL;
}

// Returns a form that has the same value; or NULL, and the value, where there is one.
static po_object *step(struct lisp *lisp, po_object *form, po_object **scope, po_object **value) {
    if (!is_cell(form)) {
        *value = po_is(form, &po_str_type) ? look_up(lisp, form, *scope) : po_incref(form);
        return NULL;
    }
    po_object *const rest = pair_of(form)->second;
    PO_AUTO po_object *head = eval(lisp, pair_of(form)->first, *scope);
    if (head == NULL) {
        return NULL;
    }
    static const struct row no_row = { .most = SIZE_MAX };
    const bool is_builtin = po_is(head, &builtin_type);
    const struct row *const row = is_builtin ? ((struct builtin *)head)->row : &no_row;
    if (!is_builtin && !po_is(head, &function_type)) {
        return fail(lisp, "a list that is called must begin with a function");
    }
    if (length(rest) < row->least || length(rest) > row->most) {
        return fail(lisp, "%s does not take %zu", row->name, length(rest));
    }
    if (row->form != NULL) {
        return row->form(lisp, rest, scope);
    }
    if (row->value != NULL) {
        *value = row->value(lisp, rest, *scope);
        return NULL;
    }
    PO_AUTO po_object *values = eval_all(lisp, rest, *scope);
    if (values != NULL && !is_builtin) {
        return enter(lisp, head, values, scope);
    }
    *value = values != NULL ? row->call(lisp, row->name, values) : NULL;
    return NULL;
}

// --- The table -----------------------------------------------------------------------------------

static po_object *quote(struct lisp *lisp, po_object *rest, po_object *scope) {
    (void)lisp, (void)scope;
    return po_incref(item(rest, 0));
}

static po_object *lambda(struct lisp *lisp, po_object *rest, po_object *scope) {
    return pair(lisp, &function_type, rest, scope);
}

// (define name form) or (define (name parameter ...) form ...)
static po_object *define(struct lisp *lisp, po_object *rest, po_object *scope) {
    const bool is_function = is_cell(item(rest, 0));
    po_object *const name = is_function ? item(item(rest, 0), 0) : item(rest, 0);
    PO_AUTO po_object *whole =
        is_function ? pair(lisp, &cell_type, pair_of(item(rest, 0))->second, pair_of(rest)->second)
                    : NULL;
    PO_AUTO po_object *value =
        is_function ? pair(lisp, &function_type, whole, scope) : eval(lisp, item(rest, 1), scope);
    return bind(lisp, scope, name, value) ? PO_NONE : NULL;
}

// (if truth form form)
static po_object *choose(struct lisp *lisp, po_object *rest, po_object **scope) {
    PO_AUTO po_object *truth = eval(lisp, item(rest, 0), *scope);
    return truth != NULL ? po_incref(item(rest, truth == PO_FALSE ? 2 : 1)) : NULL;
}

// (cond (truth form ...) ...)
static po_object *choose_clause(struct lisp *lisp, po_object *rest, po_object **scope) {
    for (; is_cell(rest); rest = pair_of(rest)->second) {
        po_object *const clause = item(rest, 0);
        PO_AUTO po_object *truth = length(clause) > 1 ? eval(lisp, item(clause, 0), *scope)
                                                      : fail(lisp, "a clause needs two forms");
        if (truth != PO_FALSE) {
            return truth != NULL ? eval_body(lisp, pair_of(clause)->second, scope) : NULL;
        }
    }
    return fail(lisp, "no clause of cond is true");
}

// (let ((name form) ...) form ...)
static po_object *let(struct lisp *lisp, po_object *rest, po_object **scope) {
    PO_AUTO po_object *inner = scope_in(lisp, *scope);
    for (po_object *all = item(rest, 0); is_cell(all); all = pair_of(all)->second) {
        po_object *const one = item(all, 0);
        PO_AUTO po_object *value = length(one) == 2
                                       ? eval(lisp, item(one, 1), *scope)
                                       : fail(lisp, "let needs pairs of name and form");
        if (value == NULL || !bind(lisp, inner, item(one, 0), value)) {
            return NULL;
        }
    }
    po_set(scope, inner);
    return inner != NULL ? eval_body(lisp, pair_of(rest)->second, scope) : NULL;
}

static po_object *cons(struct lisp *lisp, const char *name, po_object *values) {
    (void)name;
    return pair(lisp, &cell_type, po_list_at(values, 0), po_list_at(values, 1));
}

// car, cdr
static po_object *part(struct lisp *lisp, const char *name, po_object *values) {
    const po_object *const list = po_list_at(values, 0);
    if (!is_cell(list)) {
        return fail(lisp, "%s takes a list that is not empty", name);
    }
    return po_incref(name[1] == 'a' ? pair_of(list)->first : pair_of(list)->second);
}

static po_object *is_null(struct lisp *lisp, const char *name, po_object *values) {
    (void)lisp, (void)name;
    return po_bool(po_is(po_list_at(values, 0), &po_tuple_type));
}

// + - * = <
static po_object *count(struct lisp *lisp, const char *name, po_object *values) {
    bool fits = true;
    int64_t all = 0;
    for (size_t i = 0; i < po_list_size(values); i++) {
        if (!po_is(po_list_at(values, i), &po_int_type)) {
            return fail(lisp, "%s takes integers", name);
        }
        const int64_t value = po_int_value(po_list_at(values, i));
        switch (i == 0 ? 0 : name[0]) {
        case 0: all = value; break;
        case '+': fits &= !__builtin_add_overflow(all, value, &all); break;
        case '-': fits &= !__builtin_sub_overflow(all, value, &all); break;
        case '*': fits &= !__builtin_mul_overflow(all, value, &all); break;
        case '<': return po_bool(all < value);
        default: return po_bool(all == value);
        }
    }
    return fits ? po_int(lisp->state, all) : fail(lisp, "%s: more than 64 bits", name);
}

static po_object *print(struct lisp *lisp, const char *name, po_object *values) {
    (void)name;
    return show(lisp, po_list_at(values, 0)) ? PO_NONE : NULL;
}

static const struct row rows[] = {
    { "quote", 1, 1, .value = quote },
    { "lambda", 2, SIZE_MAX, .value = lambda },
    { "define", 2, SIZE_MAX, .value = define },
    { "if", 3, 3, .form = choose },
    { "cond", 1, SIZE_MAX, .form = choose_clause },
    { "begin", 1, SIZE_MAX, .form = eval_body },
    { "let", 2, SIZE_MAX, .form = let },
    { "cons", 2, 2, .call = cons },
    { "car", 1, 1, .call = part },
    { "cdr", 1, 1, .call = part },
    { "null?", 1, 1, .call = is_null },
    { "print", 1, 1, .call = print },
    { "+", 1, SIZE_MAX, .call = count },
    { "-", 1, SIZE_MAX, .call = count },
    { "*", 1, SIZE_MAX, .call = count },
    { "=", 2, 2, .call = count },
    { "<", 2, 2, .call = count },
};

// --- The program ---------------------------------------------------------------------------------

static bool bind_name(struct lisp *lisp, const char *name, po_object *value) {
    PO_AUTO po_object *symbol = po_str_intern(lisp->state, name, strlen(name));
    return symbol != NULL && bind(lisp, lisp->global, symbol, value);
}

static bool bind_table(struct lisp *lisp) {
    lisp->global = scope_in(lisp, NULL);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        PO_AUTO po_object *builtin = po_new(lisp->state, &builtin_type);
        if (builtin == NULL) {
            return false;
        }
        ((struct builtin *)builtin)->row = &rows[i];
        if (!bind_name(lisp, rows[i].name, builtin)) {
            return false;
        }
    }
    return bind_name(lisp, "else", PO_TRUE);
}

// All forms of a source. Values are printed but for those of definitions.
static bool run(struct lisp *lisp, const char *source) {
    lisp->at = source;
    lisp->line = 1;
    while (skip_space(lisp) != 0) {
        PO_AUTO po_object *form = read_form(lisp);
        PO_AUTO po_object *value = form != NULL ? eval(lisp, form, lisp->global) : NULL;
        if (value == NULL || (value != PO_NONE && !show(lisp, value))) {
            return false;
        }
    }
    return true;
}

static bool run_file(struct lisp *lisp, const char *name) {
    errno = 0;
    FILE *const from = strcmp(name, "-") == 0 ? stdin : fopen(name, "r");
    char *source = NULL;
    size_t room = 0;
    if (from != NULL && getdelim(&source, &room, 0, from) < 0 && errno == 0) {
        source[0] = 0; // an empty file
    }
    const bool is_read = errno == 0 && source != NULL;
    const bool has_run = is_read && run(lisp, source);
    if (!is_read) {
        fprintf(stderr, "lisp: %s: %s\n", name, strerror(errno));
    } else if (!has_run) {
        fprintf(stderr, "lisp: %s:%u: %s\n", name, lisp->line,
                lisp->wrong[0] != 0 ? lisp->wrong : po_error_last().text);
    }
    free(source);
    if (from != NULL) {
        fclose(from);
    }
    return has_run;
}

// How many objects only referred to each other, the global scope with its functions among them.
static void tell(po_state *state) {
    struct po_gc_stats stats;
    uint64_t runs = 0, found = 0;
    po_gc_collect(state, 2);
    po_gc_stats(state, &stats);
    for (int i = 0; i < 3; i++) {
        runs += stats.generation[i].runs;
        found += stats.generation[i].collected;
    }
    fprintf(stderr, "lisp: the collector ran %" PRIu64 " times and found %" PRIu64 " objects\n",
            runs, found);
}

static int help(bool asked) {
    fputs("usage: lisp [-v] [FILE]\n"
          "Evaluates the forms in FILE, or in standard input, and prints their values.\n"
          "  -v  tell at the end what the collector found\n"
          "Exit status: 0, 1 when a form has no value, 2 when the call is wrong.\n",
          asked ? stdout : stderr);
    return asked ? 0 : 2;
}

int main(int n, char **arguments) {
    const bool verbose = n > 1 && strcmp(arguments[1], "-v") == 0;
    const char *const name = n > 1 + verbose ? arguments[1 + verbose] : "-";
    if (n > 2 + verbose || (name[0] == '-' && name[1] != 0)) {
        return help(strcmp(name, "-h") == 0 || strcmp(name, "--help") == 0);
    }
    struct lisp lisp = { .state = po_state_new() };
    bool done = lisp.state != NULL && bind_table(&lisp);
    if (!done) {
        fprintf(stderr, "lisp: %s\n", po_error_last().text);
    } else {
        done = run_file(&lisp, name) && fflush(stdout) == 0;
    }
    po_clear(&lisp.global);
    if (verbose && lisp.state != NULL) {
        tell(lisp.state);
    }
    return po_state_free(lisp.state, STDERR_FILENO) == 0 && done ? 0 : 1;
}
