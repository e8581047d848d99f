package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
)

const answerMax = 1 << 10 // bytes of a typed answer

// confirm asks a person a question that is answered with yes or no. It reads
// one line of stdin; the end of stdin is no answer, and an error.
func (a *app) confirm(ctx context.Context, question string) (bool, error) {
	fmt.Fprintf(a.err, "%s [y/N] ", question)
	line, err := a.readLine(ctx)
	if errors.Is(err, io.EOF) {
		fmt.Fprintln(a.err)
		return false, usagef("--yes answers beforehand", "there is nobody to answer the question")
	}
	if err != nil {
		return false, err
	}
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return true, nil
	}
	return false, nil
}

// readLine reads a line of stdin, or returns when ctx ends; then the read is
// left behind, to end with the process.
func (a *app) readLine(ctx context.Context) (string, error) {
	type result struct {
		line string
		err  error
	}
	if a.lines == nil {
		a.lines = bufio.NewReader(a.in)
	}
	got := make(chan result, 1)
	go func() {
		line, err := boundedLine(a.lines)
		got <- result{line, err}
	}()
	select {
	case r := <-got:
		return r.line, r.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// boundedLine reads up to a newline; a last line without one counts.
func boundedLine(r *bufio.Reader) (string, error) {
	var b strings.Builder
	for b.Len() < answerMax {
		c, err := r.ReadByte()
		if err == io.EOF && b.Len() > 0 || err == nil && c == '\n' {
			return b.String(), nil
		}
		if err != nil {
			return "", err
		}
		b.WriteByte(c)
	}
	return "", usagef("", "that line is too long")
}
