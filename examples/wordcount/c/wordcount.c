// The same as main.go in C, which makes a module of some kilobytes: the wordcount.wasm beside main.go is made of it by
//
//     clang --target=wasm32-wasi -Oz -s -o wordcount.wasm c/wordcount.c
//
// (on Debian: clang, lld, wasi-libc, libclang-rt-dev-wasm32), so that nobody needs a compiler to try it.
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct entry {
	char *word;
	unsigned long long count;
};

static struct entry *table; // open addressing; size is a power of two
static size_t size, used;

static size_t place(const char *word) {
	unsigned long long h = 14695981039346656037ULL; // FNV-1a
	for (const char *c = word; *c; c++)
		h = (h ^ (unsigned char)*c) * 1099511628211ULL;
	size_t i = h & (size - 1);
	while (table[i].word && strcmp(table[i].word, word))
		i = (i + 1) & (size - 1);
	return i;
}

static void grow(void) {
	struct entry *old = table;
	size_t before = size;
	size = size ? size * 2 : 1024;
	if (!(table = calloc(size, sizeof *table)))
		abort();
	for (size_t i = 0; i < before; i++)
		if (old[i].word)
			table[place(old[i].word)] = old[i];
	free(old);
}

static void add(const char *word, unsigned long long count) {
	if (2 * (used + 1) > size)
		grow();
	struct entry *e = &table[place(word)];
	if (!e->word) {
		if (!(e->word = strdup(word)))
			abort();
		used++;
	}
	e->count += count;
}

static int by_word(const void *a, const void *b) {
	return strcmp(((const struct entry *)a)->word, ((const struct entry *)b)->word);
}

int main(int argc, char **argv) {
	char word[256];
	if (argc > 1 && !strcmp(argv[1], "-sum")) {
		unsigned long long n;
		while (scanf("%255s %llu", word, &n) == 2)
			add(word, n);
	} else {
		size_t length = 0;
		for (int c; (c = getchar()) != EOF;) {
			if (c < 128 && isalpha(c)) {
				if (length < sizeof word - 1)
					word[length++] = (char)tolower(c);
				continue;
			}
			if (length) {
				word[length] = 0;
				add(word, 1);
			}
			length = 0;
		}
		if (length) {
			word[length] = 0;
			add(word, 1);
		}
	}
	size_t n = 0;
	for (size_t i = 0; i < size; i++)
		if (table[i].word)
			table[n++] = table[i];
	qsort(table, n, sizeof *table, by_word);
	for (size_t i = 0; i < n; i++)
		printf("%s %llu\n", table[i].word, table[i].count);
	return 0;
}
