// Command wordcount counts the words of its standard input, or with -sum adds up what several of its kind have counted. It
// knows nothing of shoal: it is a program like any other, compiled to WebAssembly,
//
//	GOOS=wasip1 GOARCH=wasm go build -o wordcount.wasm ./examples/wordcount
//
// so that a pool can run it on the parts of a text at once:
//
//	shoal map --slice 1MiB book.txt --reduce 'wordcount.wasm -sum' wordcount.wasm
//
// The wordcount.wasm beside this file is the same program written in C (in the folder c), which makes a smaller module.
package main

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
)

// wordMax is the longest word that is told from longer ones that begin alike.
const wordMax = 255

func main() {
	work := count
	if len(os.Args) > 1 && os.Args[1] == "-sum" {
		work = sum
	}
	words, err := work(bufio.NewReader(os.Stdin))
	if err == nil {
		err = print(os.Stdout, words)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "wordcount:", err)
		os.Exit(1)
	}
}

// count counts words: runs of letters of ASCII, whose case does not matter.
func count(r *bufio.Reader) (map[string]int, error) {
	words := map[string]int{}
	var word []byte
	for {
		c, err := r.ReadByte()
		if lower := c | 0x20; err == nil && lower >= 'a' && lower <= 'z' {
			if len(word) < wordMax {
				word = append(word, lower)
			}
			continue
		}
		if len(word) > 0 {
			words[string(word)]++
			word = word[:0]
		}
		if err == io.EOF {
			return words, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// sum adds up lines of words and their counts.
func sum(r *bufio.Reader) (map[string]int, error) {
	words := map[string]int{}
	for {
		var word string
		var n int
		_, err := fmt.Fscan(r, &word, &n)
		if err == io.EOF {
			return words, nil
		}
		if err != nil {
			return nil, err
		}
		words[word] += n
	}
}

// print writes a line for each word, in order.
func print(w io.Writer, words map[string]int) error {
	out := bufio.NewWriter(w)
	for _, word := range slices.Sorted(maps.Keys(words)) {
		fmt.Fprintln(out, word, words[word])
	}
	return out.Flush()
}
