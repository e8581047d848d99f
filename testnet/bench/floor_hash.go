package main

import (
	"crypto/sha256"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
)

// hashFile hashes a file's 1 MiB chunks on all cores: no import that names each chunk by its hash can be faster.
func hashFile(a roleArgs, notices chan<- notice) error {
	f, err := os.Open(a.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	m := startMeter()
	var next, total atomic.Int64
	err = onAllCores(func() error {
		buf := make([]byte, bufferSize)
		for {
			n, err := f.ReadAt(buf, (next.Add(1)-1)*bufferSize)
			sha256.Sum256(buf[:n])
			total.Add(int64(n))
			if err == io.EOF {
				return nil
			}
			if err != nil {
				return err
			}
		}
	})
	if err != nil {
		return err
	}
	notices <- m.stop(result{Bytes: total.Load(), Files: 1})
	return nil
}

// hashTree lists a tree, then reads and hashes its files on all cores.
func hashTree(a roleArgs, notices chan<- notice) error {
	m := startMeter()
	paths, total, err := listFiles(a.Path)
	if err != nil {
		return err
	}
	var next atomic.Int64
	err = onAllCores(func() error {
		h, buf := sha256.New(), make([]byte, 64<<10)
		for {
			i := int(next.Add(1) - 1)
			if i >= len(paths) {
				return nil
			}
			h.Reset()
			if err := addFile(h, filepath.Join(a.Path, paths[i]), buf); err != nil {
				return err
			}
			h.Sum(buf[:0])
		}
	})
	if err != nil {
		return err
	}
	notices <- m.stop(result{Bytes: total, Files: len(paths)})
	return nil
}

// onAllCores runs work once per core at the same time and returns the first error.
func onAllCores(work func() error) error {
	var wg sync.WaitGroup
	errs := make(chan error, runtime.GOMAXPROCS(0))
	for range cap(errs) {
		wg.Go(func() { errs <- work() })
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
