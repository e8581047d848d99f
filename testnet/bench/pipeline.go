package main

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"sync/atomic"
)

// buffersMax bounds the buffers between the reader of a stream and its hasher and writer.
const buffersMax = 8

// block is one pooled buffer on its way to both the hasher and the writer; the second to finish gives it back.
type block struct {
	data []byte
	left atomic.Int32
}

// receive reads src to its end into the file dst, and returns how many bytes came and their SHA-256. Reading, hashing and
// writing each have a goroutine: a hash and a disk that take turns with the network would each wait for the others.
func receive(src io.Reader, dst string) (n int64, sum string, err error) {
	f, err := os.Create(dst)
	if err != nil {
		return 0, "", err
	}
	defer f.Close()

	free := make(chan *block, buffersMax)
	for range buffersMax {
		free <- &block{data: make([]byte, bufferSize)}
	}
	done := func(b *block) {
		if b.left.Add(-1) == 0 {
			free <- b
		}
	}
	hashing, writing := make(chan *block, buffersMax), make(chan *block, buffersMax)
	sums := make(chan string, 1)
	go func() {
		h := sha256.New()
		for b := range hashing {
			h.Write(b.data)
			done(b)
		}
		sums <- hex.EncodeToString(h.Sum(nil))
	}()
	wrote := make(chan error, 1)
	go func() {
		var failed error
		for b := range writing {
			if failed == nil {
				_, failed = f.Write(b.data)
			}
			done(b)
		}
		wrote <- failed
	}()

	for err == nil {
		b := <-free
		var got int
		got, err = io.ReadFull(src, b.data[:bufferSize])
		if got > 0 {
			n += int64(got)
			b.data = b.data[:got]
			b.left.Store(2)
			hashing <- b
			writing <- b
		}
	}
	close(hashing)
	close(writing)
	sum = <-sums
	if werr := <-wrote; werr != nil {
		return n, sum, werr
	}
	if err != io.EOF && err != io.ErrUnexpectedEOF {
		return n, sum, err
	}
	return n, sum, f.Close()
}

// send reads the file src ahead of dst, in a goroutine of its own.
func send(dst io.Writer, src string) error {
	f, err := os.Open(src)
	if err != nil {
		return err
	}
	defer f.Close()
	free, full := make(chan []byte, buffersMax), make(chan []byte, buffersMax)
	for range buffersMax {
		free <- make([]byte, bufferSize)
	}
	stop := make(chan struct{})
	defer close(stop)
	read := make(chan error, 1)
	go func() {
		defer close(full)
		for {
			var buf []byte
			select {
			case buf = <-free:
			case <-stop:
				return
			}
			n, err := io.ReadFull(f, buf[:bufferSize])
			if n > 0 {
				full <- buf[:n]
			}
			if err != nil {
				read <- err
				return
			}
		}
	}()
	for buf := range full {
		if _, err := dst.Write(buf); err != nil {
			return err
		}
		free <- buf
	}
	if err := <-read; err != io.EOF && err != io.ErrUnexpectedEOF {
		return err
	}
	return nil
}
