package main

import (
	"strings"
	"testing"
)

func TestEmbed(t *testing.T) {
	var out strings.Builder
	if err := run(t.Context(), t.TempDir(), &out); err != nil {
		t.Fatal(err)
	}
	if want := "fetched 24 bytes from 1 peer: hello from another peer\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}
