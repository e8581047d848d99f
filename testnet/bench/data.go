package main

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// bufferSize is the unit in which every floor reads, hashes and writes.
const bufferSize = 1 << 20

// filesPerFolder is the shape of the tree of small files: what source trees and photo folders tend to have.
const filesPerFolder = 100

// size is a number of bytes as a flag: 4096, 4KiB, 64MiB, 1GiB, or decimal kB, MB, GB.
type size int64

var sizeUnits = []struct {
	suffix string
	bytes  int64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"B", 1}, {"", 1}}

func (s *size) Set(text string) error {
	for _, u := range sizeUnits {
		number, ok := strings.CutSuffix(text, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil || n < 0 || n > (1<<50)/u.bytes {
			return fmt.Errorf("%q is not a size such as 64MiB", text)
		}
		*s = size(n * u.bytes)
		return nil
	}
	return nil // unreachable: the last suffix is empty
}

func (s *size) String() string {
	for _, u := range []struct {
		suffix string
		bytes  size
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if *s >= u.bytes && *s%u.bytes == 0 {
			return fmt.Sprint(int64(*s/u.bytes), u.suffix)
		}
	}
	return fmt.Sprint(int64(*s), "B")
}

// generator makes pseudo-random, incompressible bytes; equal seeds make equal bytes.
func generator(seed uint64) *rand.ChaCha8 {
	var s [32]byte
	binary.LittleEndian.PutUint64(s[:], seed)
	return rand.NewChaCha8(s)
}

// makeFile writes size pseudo-random bytes and returns their SHA-256 in hexadecimal.
func makeFile(path string, size int64, seed uint64) (string, error) {
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum := sha256.New()
	g, buf := generator(seed), make([]byte, bufferSize)
	for size > 0 {
		b := buf[:min(size, bufferSize)]
		g.Read(b)
		sum.Write(b)
		if _, err := f.Write(b); err != nil {
			return "", err
		}
		size -= int64(len(b))
	}
	return hex.EncodeToString(sum.Sum(nil)), f.Close()
}

// makeTree writes n small files below dir and returns the tree's digest, as treeSum computes it.
func makeTree(dir string, n int, size int64, seed uint64) (string, error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	g, buf := generator(seed), make([]byte, size)
	for i := range n {
		folder := filepath.Join(dir, fmt.Sprintf("folder-%03d", i/filesPerFolder))
		if i%filesPerFolder == 0 {
			if err := os.MkdirAll(folder, 0o755); err != nil {
				return "", err
			}
		}
		g.Read(buf)
		if err := os.WriteFile(filepath.Join(folder, fmt.Sprintf("file-%06d.bin", i)), buf, 0o644); err != nil {
			return "", err
		}
	}
	return treeSum(dir)
}

// fileSum reads the file back: what counts is what the disk gives.
func fileSum(path string) (string, error) {
	sum := sha256.New()
	if err := addFile(sum, path, make([]byte, bufferSize)); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// treeSum is a digest over the paths and contents of all files below dir, in the order of their paths.
func treeSum(dir string) (string, error) {
	sum := sha256.New()
	buf := make([]byte, 64<<10)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		fmt.Fprintf(sum, "%q ", filepath.ToSlash(rel))
		return addFile(sum, path, buf)
	})
	return hex.EncodeToString(sum.Sum(nil)), err
}

func addFile(sum hash.Hash, path string, buf []byte) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		n, err := f.Read(buf)
		sum.Write(buf[:n])
		if err != nil {
			if err == io.EOF {
				return nil
			}
			return err
		}
	}
}

// listFiles returns the files below dir, relative and slash-separated, with their sizes.
func listFiles(dir string) (paths []string, total int64, err error) {
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		paths = append(paths, filepath.ToSlash(rel))
		total += info.Size()
		return err
	})
	return paths, total, err
}
