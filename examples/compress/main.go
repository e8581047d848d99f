// Command compress has a pool run a native command, gzip, over every file of a folder in the pool, each where there is an idle
// core, and puts what comes out into another folder of the pool. The peers that take part were started with --allow-exec:
//
//	shoal up --detach --allow-exec
//	shoal put texts /texts
//	go run ./examples/compress /texts /texts.gz
//
// On the command line it is one line:
//
//	shoal map /texts -o /texts.gz -- sh -c 'gzip -9c "$1" > "out/$(basename "$1").gz"' sh {}
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/shoal-os/shoal/node/api/client"
)

// script compresses its one argument, which is below the folder in, into the folder out.
const script = `gzip -9c "$1" > "out/$(basename "$1").gz"`

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: compress /FROM /TO")
		os.Exit(2)
	}
	if err := run(context.Background(), os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "compress:", err)
		os.Exit(1)
	}
}

// run finds the peer of the home that SHOAL_HOME names.
func run(ctx context.Context, from, to string) error {
	home := os.Getenv("SHOAL_HOME")
	if home == "" {
		user, err := os.UserHomeDir()
		if err != nil {
			return err
		}
		home = filepath.Join(user, ".shoal")
	}
	peer, err := client.Open(home)
	if err != nil {
		return err
	}
	defer peer.Close()
	saved, err := compress(ctx, peer, from, to)
	if err != nil {
		return err
	}
	fmt.Printf("%d files, %d bytes, in %s\n", saved.Files, saved.Size, saved.Path)
	return nil
}

// compress asks for a task for each file, waits for all, and saves what they left.
func compress(ctx context.Context, peer *client.Client, from, to string) (client.FileTransfer, error) {
	job, err := peer.JobSubmit(ctx, client.JobRequest{
		Name:    "compress",
		Program: client.JobProgram{Kind: "proc", Path: "sh", Args: []string{"-c", script, "sh", "{}"}},
		Split:   &client.JobSplit{Files: []client.JobInput{{Name: ".", From: client.JobSource{Path: from}}}},
		Cores:   1,
		Time:    600, // seconds
	}, nil)
	if err != nil {
		return client.FileTransfer{}, err
	}
	end, err := peer.JobWatch(ctx, job.ID, func(client.JobEvent) error { return nil })
	if err != nil {
		return client.FileTransfer{}, err
	}
	if end.State != client.JobDone {
		return client.FileTransfer{}, fmt.Errorf("%d of %d files failed; `shoal logs %.12s TASK` says why", end.Failed, end.Tasks, job.ID)
	}
	return peer.JobSave(ctx, client.JobSaveRequest{Job: job.ID, Task: -1, Path: to}, nil)
}
