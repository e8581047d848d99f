package main

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/shoal-os/shoal/storage/chunk"
)

// runMemory gets one file far larger than the memory that either side may use. Only the peaks matter, so the file is
// sparse, the one exception to the rule about data, except that each chunk begins with its number: equal chunks would
// be one block, sent once.
func runMemory(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("bench memory", flag.ContinueOnError)
	bytes := size(10 << 30)
	fs.Var(&bytes, "size", "size of the sparse file")
	opts := addRunFlags(fs, 1)
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 || opts.runs < 1 || bytes <= 0 {
		return errors.New("memory: bad arguments; see memory --help")
	}
	return inTemporaryFolder(func(dir string) error {
		c, err := memoryCase(dir, bytes, newPeers(dir, ""))
		if err != nil {
			return err
		}
		report := newReport("memory", opts.runs)
		report.groups = []group{{groupMemory, fmt.Sprintf("one sparse file of %s", bytes.String()), "MB/s", float64(bytes) / (1 << 30), "CPU s/GiB"}}
		return report.measure(ctx, opts, []testcase{c})
	})
}

const groupMemory = "memory"

// memoryCase makes the sparse file and says how its transfer is measured.
func memoryCase(dir string, bytes size, shoal *peers) (testcase, error) {
	b := &shareBench{file: filepath.Join(dir, "sparse.bin"), scratch: dir, size: int64(bytes), shoal: shoal}
	f, err := os.Create(b.file)
	if err != nil {
		return testcase{}, err
	}
	err = f.Truncate(b.size)
	for at := int64(0); at < b.size && err == nil; at += chunk.LeafSize {
		_, err = f.WriteAt(binary.BigEndian.AppendUint64(nil, uint64(at)+1), at)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return testcase{}, err
	}
	if b.fileSum, err = fileSum(b.file); err != nil {
		return testcase{}, err
	}
	return testcase{
		name: "memory", group: groupMemory, what: "shoal get",
		run: func(ctx context.Context) (sample, error) {
			return b.getting(ctx, b.file, float64(b.size)/1e6, b.fileSum, fileSum)
		},
	}, nil
}
