package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoal-os/shoal/node"
	"github.com/shoal-os/shoal/node/api/client"
	guests "github.com/shoal-os/shoal/tasks/exec"
)

func TestMain(m *testing.M) {
	guests.Child()
	os.Exit(m.Run())
}

// TestCountedInParts has a pool count the words of a text in slices, and compares with counting it here.
func TestCountedInParts(t *testing.T) {
	book := writeBook(t, 300<<10)
	var here bytes.Buffer
	f, err := os.Open(book)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	words, err := count(bufio.NewReader(f))
	if err == nil {
		err = print(&here, words)
	}
	if err != nil {
		t.Fatal(err)
	}

	n, err := node.Start(t.Context(), node.Config{Home: filepath.Join(t.TempDir(), "home"), Listen: []string{"/ip4/127.0.0.1/tcp/0"}})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	committed, err := filepath.Abs("wordcount.wasm")
	if err != nil {
		t.Fatal(err)
	}
	for name, module := range map[string]string{"the committed module": committed, "this program": compile(t)} {
		t.Run(name, func(t *testing.T) {
			source := &client.JobSource{File: module}
			job, err := n.JobSubmit(t.Context(), client.JobRequest{
				Name:    "wordcount",
				Program: client.JobProgram{Kind: "wasm", Module: source},
				Split:   &client.JobSplit{Slice: &client.JobSource{File: book}, Size: 64 << 10},
				Reduce:  &client.JobProgram{Kind: "wasm", Module: source, Args: []string{"-sum"}},
			}, nil)
			if err != nil {
				t.Fatal(err)
			}
			end, err := n.JobWatch(t.Context(), job.ID, func(client.JobEvent) error { return nil })
			if err != nil || end.State != client.JobDone || end.Tasks != 6 {
				t.Fatalf("%+v: %v", end, err)
			}
			var there bytes.Buffer
			err = n.JobOutput(t.Context(), job.ID, end.Tasks-1, client.OutputStdout, "", func(int64) io.Writer { return &there })
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(here.Bytes(), there.Bytes()) {
				t.Errorf("the pool counted\n%.200s…\nand this process\n%.200s…", &there, &here)
			}
		})
	}
}

// compile makes a module of this program.
func compile(t *testing.T) string {
	t.Helper()
	module := filepath.Join(t.TempDir(), "wordcount-go.wasm")
	cmd := exec.Command("go", "build", "-o", module, ".")
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return module
}

// writeBook writes a text of about so many bytes, the same each time.
func writeBook(t *testing.T, size int) string {
	t.Helper()
	chance := rand.New(rand.NewPCG(1, 2))
	var b strings.Builder
	for b.Len() < size {
		for range 5 + chance.IntN(15) {
			fmt.Fprintf(&b, "%s%c ", [...]string{"The", "shoal", "of", "Fish", "swims", "a", "lid", "ünicode", "don't"}[chance.IntN(9)], 'a'+chance.Int32N(20))
		}
		b.WriteString("end.\n")
	}
	path := filepath.Join(t.TempDir(), "book.txt")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
