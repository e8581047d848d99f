// Command embed runs two peers in one program: one shares a file, the other
// fetches it by the link. It shows how a Go program embeds a peer; it owns no
// logic of its own.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/shoal-os/shoal/node"
	"github.com/shoal-os/shoal/node/api/client"
	"github.com/shoal-os/shoal/tasks/exec"
)

func main() {
	exec.Child() // a program with a peer in it is started again by it to run guests of the pool's jobs
	dir, err := os.MkdirTemp("", "embed-")
	if err == nil {
		defer os.RemoveAll(dir)
		err = run(context.Background(), dir, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "embed:", err)
		os.Exit(1)
	}
}

// run does it all below dir.
func run(ctx context.Context, dir string, out io.Writer) error {
	original := filepath.Join(dir, "hello.txt")
	if err := os.WriteFile(original, []byte("hello from another peer\n"), 0o644); err != nil {
		return err
	}

	ada, err := start(ctx, filepath.Join(dir, "ada"))
	if err != nil {
		return err
	}
	defer ada.Close()
	share, err := ada.Share(ctx, client.ShareRequest{Path: original}, nil)
	if err != nil {
		return err
	}

	bob, err := start(ctx, filepath.Join(dir, "bob"))
	if err != nil {
		return err
	}
	defer bob.Close()
	got, err := bob.Get(ctx, client.GetRequest{Link: share.Link, Dest: filepath.Join(dir, "copy.txt")}, nil)
	if err != nil {
		return err
	}

	data, err := os.ReadFile(got.Path)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "fetched %d bytes from %d peer: %s", got.Fetched, len(got.Providers), data)
	return err
}

// start starts a peer that only this machine reaches. Without Listen it would
// listen on all interfaces, and with LAN find others by itself.
func start(ctx context.Context, home string) (*node.Node, error) {
	return node.Start(ctx, node.Config{Home: home, Listen: []string{"/ip4/127.0.0.1/tcp/0"}})
}
