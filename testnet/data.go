package testnet

import (
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"

	"github.com/shoal-os/shoal/testnet/script"
)

// blob is one file that a scenario made: what it must read as.
type blob struct {
	name string // inside its folder
	size int64
	sum  [sha256.Size]byte
}

// writeData makes a folder of files that follow from the seed, and says what is in them.
func writeData(dir string, files int, size script.Sizes, seed uint64) ([]blob, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	random := rand.New(rand.NewPCG(seed, 0))
	blobs := make([]blob, files)
	for i := range blobs {
		b := &blobs[i]
		b.name = fmt.Sprintf("f%04d", i)
		b.size = size.Least
		if size.Most > size.Least {
			b.size += random.Int64N(size.Most - size.Least + 1)
		}
		if err := b.write(filepath.Join(dir, b.name), random.Uint64()); err != nil {
			return nil, err
		}
	}
	return blobs, nil
}

func (b *blob) write(path string, seed uint64) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	key := [32]byte{}
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	hash := sha256.New()
	if _, err := io.CopyN(io.MultiWriter(f, hash), rand.NewChaCha8(key), b.size); err != nil {
		return err
	}
	hash.Sum(b.sum[:0])
	return f.Close()
}

// check compares a file on this machine with what it must be.
func (b blob) check(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	s := newSummer()
	if _, err := io.Copy(s, f); err != nil {
		return err
	}
	return s.compare(b)
}

// summer hashes what is read.
type summer struct {
	hash interface {
		io.Writer
		Sum([]byte) []byte
	}
	size int64
}

func newSummer() *summer { return &summer{hash: sha256.New()} }

func (s *summer) Write(p []byte) (int, error) {
	s.size += int64(len(p))
	return s.hash.Write(p)
}

// compare says in which way what was read is not the file.
func (s *summer) compare(b blob) error {
	switch {
	case s.size != b.size:
		return fmt.Errorf("it has %d bytes and not %d", s.size, b.size)
	case [sha256.Size]byte(s.hash.Sum(nil)) != b.sum:
		return fmt.Errorf("its %d bytes are others than were stored", s.size)
	}
	return nil
}
