package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	osexec "os/exec"
	"testing"

	"github.com/shoal-os/shoal/node"
	"github.com/shoal-os/shoal/node/api/client"
	"github.com/shoal-os/shoal/tasks/exec"
)

func TestMain(m *testing.M) {
	exec.Child()
	os.Exit(m.Run())
}

// TestCompressed puts files into a pool of one, has them compressed, and unpacks what came of it.
func TestCompressed(t *testing.T) {
	for _, tool := range []string{"sh", "gzip", "basename"} {
		if _, err := osexec.LookPath(tool); err != nil {
			t.Skipf("this machine has no %s: %v", tool, err)
		}
	}
	home, err := os.MkdirTemp("", "compress-") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(home)
	n, err := node.Start(t.Context(), node.Config{Home: home, Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Lend: node.Lend{AllowExec: true}})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	peer := client.New(home, n.Endpoint())
	defer peer.Close()
	text := func(i int) []byte { return bytes.Repeat(fmt.Appendf(nil, "this is text %d\n", i), 1000) }
	const files = 5
	for i := range files {
		if _, err := peer.FileWrite(t.Context(), fmt.Sprintf("/texts/%d.txt", i), 0, bytes.NewReader(text(i))); err != nil {
			t.Fatal(err)
		}
	}
	saved, err := compress(t.Context(), peer, "/texts", "/texts.gz")
	if err != nil || saved.Files != files {
		t.Fatalf("%+v: %v", saved, err)
	}
	for i := range files {
		var packed bytes.Buffer
		if err := peer.Cat(t.Context(), client.CatRequest{Link: fmt.Sprintf("/texts.gz/%d.txt.gz", i)}, &packed, nil); err != nil {
			t.Fatal(err)
		}
		r, err := gzip.NewReader(&packed)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, text(i)) {
			t.Errorf("%d: %.30q…, %v", i, got, err)
		}
	}
}
