package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

// runMemory gets one file far larger than the memory that either side may use. Only the peaks matter, so the file is
// sparse, the one exception to the rule about data: nobody hashes or sends zeros any differently.
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
		b := &shareBench{file: filepath.Join(dir, "sparse.bin"), scratch: dir, size: int64(bytes), shoal: newPeers(dir, "")}
		f, err := os.Create(b.file)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Truncate(b.size), f.Close()); err != nil {
			return err
		}
		if b.fileSum, err = fileSum(b.file); err != nil {
			return err
		}
		report := newReport("memory", opts.runs)
		report.groups = []group{{groupFile, fmt.Sprintf("one sparse file of %s", bytes.String()), "MB/s", float64(bytes) / (1 << 30), "CPU s/GiB"}}
		return report.measure(ctx, opts, []testcase{{
			name: "get", group: groupFile, what: "shoal get",
			run: func(ctx context.Context) (sample, error) {
				return b.getting(ctx, b.file, float64(b.size)/1e6, b.fileSum, fileSum)
			},
		}})
	})
}
