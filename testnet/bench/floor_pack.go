package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
)

// Many small files over one plain TCP stream, packed one after another, as rsync and tar over ssh send them, but verified:
// per file the path's length and the path, the size, the SHA-256, the bytes. A batch of files is the unit of work.
const (
	packBatch    = 64      // files
	packPathMax  = 4 << 10 // bytes
	packSizeMax  = 1 << 20 // bytes of one file
	packInFlight = 16      // batches between the reader and the writers
)

// packedFile is one file as received; its content lies in its batch's memory.
type packedFile struct {
	path    string
	sum     [sha256.Size]byte
	content []byte
}

// packSend reads files on all cores and writes whole batches. The hashes are made beforehand, as a seeder has them from its import.
func packSend(a roleArgs, notices chan<- notice) error {
	paths, total, err := listFiles(a.Path)
	if err != nil {
		return err
	}
	sums := make([][sha256.Size]byte, len(paths))
	for i, p := range paths {
		data, err := os.ReadFile(filepath.Join(a.Path, p))
		if err != nil {
			return err
		}
		sums[i] = sha256.Sum256(data)
	}
	conn, err := net.Dial("tcp", a.Addr)
	if err != nil {
		return err
	}
	m := startMeter()
	var next atomic.Int64
	var mu sync.Mutex
	err = onAllCores(func() error {
		var out bytes.Buffer
		for {
			first := int(next.Add(packBatch) - packBatch)
			if first >= len(paths) {
				return nil
			}
			out.Reset()
			for i := first; i < min(first+packBatch, len(paths)); i++ {
				if err := packOne(&out, a.Path, paths[i], sums[i]); err != nil {
					return err
				}
			}
			mu.Lock()
			_, err := conn.Write(out.Bytes())
			mu.Unlock()
			if err != nil {
				return err
			}
		}
	})
	if err != nil {
		return err
	}
	if err := conn.Close(); err != nil {
		return err
	}
	notices <- m.stop(result{Bytes: total, Files: len(paths)})
	return nil
}

func packOne(out *bytes.Buffer, dir, path string, sum [sha256.Size]byte) error {
	f, err := os.Open(filepath.Join(dir, path))
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	head := binary.AppendUvarint(out.AvailableBuffer(), uint64(len(path)))
	head = append(head, path...)
	head = binary.AppendUvarint(head, uint64(info.Size()))
	head = append(head, sum[:]...)
	out.Write(head)
	_, err = io.CopyN(out, f, info.Size())
	return err
}

// packReceive unpacks on one goroutine; hashing, comparing and writing files run on all cores.
func packReceive(a roleArgs, notices chan<- notice) error {
	conn, err := acceptOne(a.Listen, notices)
	if err != nil {
		return err
	}
	defer conn.Close()
	m := startMeter()
	batches := make(chan []packedFile, packInFlight)
	wrote := make(chan error, 1)
	go func() {
		err := onAllCores(func() error { return writeBatches(a.Out, batches) })
		for range batches { // after an error: let the reader finish
		}
		wrote <- err
	}()
	n, total, err := readBatches(conn, a.Out, batches)
	close(batches)
	if err = errors.Join(err, <-wrote); err != nil {
		return err
	}
	notices <- m.stop(result{Bytes: total, Files: n})
	return nil
}

// readBatches makes folders as it meets them, so that the writers need not agree on who does.
func readBatches(conn io.Reader, out string, batches chan<- []packedFile) (n int, total int64, err error) {
	r := bufio.NewReaderSize(conn, bufferSize)
	folders := map[string]bool{}
	var batch []packedFile
	for {
		f, err := readPacked(r)
		if err == io.EOF {
			if len(batch) > 0 {
				batches <- batch
			}
			return n, total, nil
		}
		if err != nil {
			return n, total, err
		}
		if dir := filepath.Dir(f.path); !folders[dir] {
			folders[dir] = true
			if err := os.MkdirAll(filepath.Join(out, dir), 0o755); err != nil {
				return n, total, err
			}
		}
		n++
		total += int64(len(f.content))
		if batch = append(batch, f); len(batch) == packBatch {
			batches <- batch
			batch = make([]packedFile, 0, packBatch)
		}
	}
}

func readPacked(r *bufio.Reader) (f packedFile, err error) {
	length, err := binary.ReadUvarint(r)
	if err != nil {
		return f, err
	}
	if length > packPathMax {
		return f, errors.New("path too long")
	}
	path := make([]byte, length)
	if _, err := io.ReadFull(r, path); err != nil {
		return f, err
	}
	f.path = string(path)
	if !filepath.IsLocal(f.path) {
		return f, fmt.Errorf("path %q leads outside", f.path)
	}
	size, err := binary.ReadUvarint(r)
	if err != nil {
		return f, err
	}
	if size > packSizeMax {
		return f, errors.New("file too large")
	}
	if _, err := io.ReadFull(r, f.sum[:]); err != nil {
		return f, err
	}
	f.content = make([]byte, size)
	_, err = io.ReadFull(r, f.content)
	return f, err
}

func writeBatches(out string, batches <-chan []packedFile) error {
	for batch := range batches {
		for _, f := range batch {
			if sha256.Sum256(f.content) != f.sum {
				return fmt.Errorf("%s: wrong hash", f.path)
			}
			file, err := os.OpenFile(filepath.Join(out, f.path), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
			if err != nil {
				return err
			}
			_, err = file.Write(f.content)
			if err = errors.Join(err, file.Close()); err != nil {
				return err
			}
		}
	}
	return nil
}
