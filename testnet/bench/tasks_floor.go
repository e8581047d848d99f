package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
)

func noopReader() io.Reader { return bytes.NewReader(noopModule) }

// floorTime is for how long a floor is measured.
const floorTime = 3 * time.Second

// bareCommits appends to a file and syncs it, one after another.
func (b *tasksBench) bareCommits(ctx context.Context) (sample, error) {
	f, err := os.Create(filepath.Join(b.dir, "commits"))
	if err != nil {
		return sample{}, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	record := make([]byte, 256)
	var times []time.Duration
	began := time.Now()
	for time.Since(began) < floorTime && ctx.Err() == nil {
		at := time.Now()
		if _, err := f.Write(record); err != nil {
			return sample{}, err
		}
		if err := f.Sync(); err != nil {
			return sample{}, err
		}
		times = append(times, time.Since(at))
	}
	elapsed := time.Since(began).Seconds()
	return sample{rate: float64(len(times)) / elapsed, seconds: elapsed, note: percentiles(times)}, ctx.Err()
}

// onWorkers calls work on taskWorkers goroutines again and again, and counts.
func onWorkers(ctx context.Context, work func(context.Context) error) (sample, error) {
	var count atomic.Int64
	failed := make([]error, taskWorkers)
	before, began := ownCPU(), time.Now()
	var wg sync.WaitGroup
	for i := range taskWorkers {
		wg.Go(func() {
			for time.Since(began) < floorTime && ctx.Err() == nil && failed[i] == nil {
				failed[i] = work(ctx)
				count.Add(1)
			}
		})
	}
	wg.Wait()
	elapsed := time.Since(began).Seconds()
	return sample{rate: float64(count.Load()) / elapsed, seconds: elapsed, send: result{CPU: ownCPU() - before}}, errors.Join(failed...)
}

// bareForks starts a program that does nothing, again and again, as `xargs -P4` would.
func (b *tasksBench) bareForks(ctx context.Context) (sample, error) {
	path, err := exec.LookPath("true")
	if err != nil {
		return sample{}, err
	}
	return onWorkers(ctx, func(ctx context.Context) error { return exec.CommandContext(ctx, path).Run() })
}

// bareModules makes an instance of the no-op, calls it and drops it, again and again.
func bareModules(ctx context.Context) (sample, error) {
	r := wazero.NewRuntime(ctx)
	defer r.Close(ctx)
	if _, err := wasi_snapshot_preview1.Instantiate(ctx, r); err != nil {
		return sample{}, err
	}
	compiled, err := r.CompileModule(ctx, noopModule)
	if err != nil {
		return sample{}, err
	}
	return onWorkers(ctx, func(ctx context.Context) error {
		m, err := r.InstantiateModule(ctx, compiled, wazero.NewModuleConfig().WithName(""))
		if err != nil {
			return err
		}
		return m.Close(ctx)
	})
}

// hashed is the file whose digest is computed, made once.
func (b *tasksBench) hashed() (path string, err error) {
	path = filepath.Join(b.dir, "hashed.bin")
	if info, err := os.Stat(path); err == nil && info.Size() == int64(b.sizes.split) {
		return path, nil
	}
	_, err = makeFile(path, int64(b.sizes.split), 42)
	return path, err
}

// hashAlone is what one machine gives: the digest of each slice, and the time that it takes on all cores.
func (b *tasksBench) hashAlone(ctx context.Context) (sample, error) {
	path, err := b.hashed()
	if err != nil {
		return sample{}, err
	}
	began, before := time.Now(), ownCPU()
	if _, err := sliceSums(path, int64(b.sizes.split)); err != nil {
		return sample{}, err
	}
	elapsed := time.Since(began).Seconds()
	return sample{rate: float64(b.sizes.split) / 1e6 / elapsed, seconds: elapsed, send: result{CPU: ownCPU() - before}}, nil
}

// sliceSums are the SHA-256 of each slice of a file, in hex, computed on all cores.
func sliceSums(path string, total int64) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	sums := make([]string, (total+sliceBytes-1)/sliceBytes)
	var next atomic.Int64
	err = onAllCores(func() error {
		buf := make([]byte, bufferSize)
		for {
			i := next.Add(1) - 1
			if i >= int64(len(sums)) {
				return nil
			}
			h := sha256.New()
			at := i * sliceBytes
			if n, err := io.CopyBuffer(h, io.NewSectionReader(f, at, min(sliceBytes, total-at)), buf); err != nil {
				return fmt.Errorf("slice %d after %d bytes: %w", i, n, err)
			}
			sums[i] = hex.EncodeToString(h.Sum(nil))
		}
	})
	return sums, err
}
