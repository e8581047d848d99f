package main

import (
	"os"
	"strings"
	"testing"

	"github.com/shoal-os/shoal/tasks/exec"
)

func TestMain(m *testing.M) {
	exec.Child()
	os.Exit(m.Run())
}

func TestEmbed(t *testing.T) {
	var out strings.Builder
	if err := run(t.Context(), t.TempDir(), &out); err != nil {
		t.Fatal(err)
	}
	if want := "fetched 24 bytes from 1 peer: hello from another peer\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}
