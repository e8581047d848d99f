package block

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/chunk/bitfield"
)

// The files of one root's record.
const (
	metaFile = "meta.json" // what and where; replaced atomically
	treeFile = "tree"      // the non-leaf blocks in walk order, each after its length as a uvarint
	statFile = "mtimes"    // modification times of the files, 8 bytes each little-endian, then a CRC-32C
	haveFile = "have"      // the bitfield of a partial

	metaVersion = 1
	metaMax     = 64 << 10
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// meta is the JSON part of a record.
type meta struct {
	Version int       `json:"version"`
	Root    chunk.CID `json:"root"`
	Name    string    `json:"name"`
	State   State     `json:"state"`
	Path    string    `json:"path"`
	Size    int64     `json:"size"`
	Files   int       `json:"files"`
	Leaves  int       `json:"leaves"`
	Added   time.Time `json:"added"`
	// Placed: a partial under its own name, see Place.
	Placed bool `json:"placed,omitempty"`
	// Web are URLs where the bytes lie too, for the links that are made of it.
	Web   []string `json:"web,omitempty"`
	Limit *Limit   `json:"limit,omitempty"`
	// Boot is the boot of the machine under which the bytes were last written
	// without being synced; empty once they are known to be on the disk.
	Boot string `json:"boot,omitempty"`
	// Check is the CRC-32C, in hexadecimal, of all of this without it: one
	// wrong digit in a count would have every peer take this one for a liar.
	Check string `json:"check"`
}

// encode gives the meta with its checksum.
func (m meta) encode() ([]byte, error) {
	m.Check = ""
	data, err := json.MarshalIndent(m, "", " ")
	if err != nil {
		return nil, err
	}
	m.Check = fmt.Sprintf("%08x", crc32.Checksum(data, castagnoli))
	return json.MarshalIndent(m, "", " ")
}

// decodeMeta reads what encode made and nothing else.
func decodeMeta(data []byte) (m meta, err error) {
	if err := json.Unmarshal(data, &m); err != nil {
		return m, err
	}
	want, err := m.encode()
	if err == nil && !bytes.Equal(want, bytes.TrimSpace(data)) {
		err = errors.New("checksum of " + metaFile)
	}
	return m, err
}

// loadRoot reads a record back.
func loadRoot(dir string) (*Root, error) {
	data, err := readBounded(filepath.Join(dir, metaFile), metaMax)
	if err != nil {
		return nil, fmt.Errorf("block: record %s: %w: %w", filepath.Base(dir), ErrDamaged, err)
	}
	r := &Root{dir: dir}
	if r.meta, err = decodeMeta(data); err != nil {
		return nil, fmt.Errorf("block: record %s: %w: %w", filepath.Base(dir), ErrDamaged, err)
	}
	if r.meta.Version != metaVersion || r.meta.Root.String() != filepath.Base(dir) || r.meta.Leaves < 0 {
		return nil, fmt.Errorf("block: record %s: %w: version %d of %s", filepath.Base(dir), ErrDamaged, r.meta.Version, r.meta.Root)
	}
	r.leaves = r.meta.Leaves
	switch r.meta.State {
	case Partial:
		err = r.loadHave()
		if r.settlePlace(); err == nil && r.meta.Placed {
			err = r.loadMtimes()
		}
	case Indexed, Complete:
		err = r.loadMtimes()
	default:
		err = fmt.Errorf("state %q", r.meta.State)
	}
	if err != nil {
		return nil, fmt.Errorf("block: record %s: %w: %w", filepath.Base(dir), ErrDamaged, err)
	}
	return r, nil
}

func (r *Root) loadHave() error {
	r.have = bitfield.New(r.leaves)
	data, err := readBounded(filepath.Join(r.dir, haveFile), (r.leaves+7)/8)
	if errors.Is(err, os.ErrNotExist) {
		return nil // killed before the first leaf
	} else if err != nil {
		return err
	}
	// A short file means that the tail was never claimed.
	data = append(data, make([]byte, (r.leaves+7)/8-len(data))...)
	have, err := bitfield.Parse(data, r.leaves)
	if err != nil {
		return err
	}
	r.have = have
	return nil
}

func (r *Root) loadMtimes() error {
	data, err := readBounded(filepath.Join(r.dir, statFile), 8*r.meta.Files+4)
	if err != nil {
		return err
	}
	if len(data) != 8*r.meta.Files+4 {
		return io.ErrUnexpectedEOF
	}
	body, sum := data[:len(data)-4], binary.LittleEndian.Uint32(data[len(data)-4:])
	if crc32.Checksum(body, castagnoli) != sum {
		return errors.New("checksum of modification times")
	}
	r.mtimes = make([]int64, r.meta.Files)
	for i := range r.mtimes {
		r.mtimes[i] = int64(binary.LittleEndian.Uint64(body[8*i:]))
	}
	return nil
}

// writeAll writes a fresh record into r.dir.
func (r *Root) writeAll(nodes [][]byte) error {
	if err := writeNodes(filepath.Join(r.dir, treeFile), nodes); err != nil {
		return err
	}
	if r.meta.State != Partial {
		if err := r.writeMtimes(); err != nil {
			return err
		}
	}
	return r.writeMeta()
}

func (r *Root) writeMeta() error {
	if r.detached {
		return nil
	}
	data, err := r.meta.encode()
	if err != nil {
		return err
	}
	return replaceFile(filepath.Join(r.dir, metaFile), append(data, '\n'))
}

func (r *Root) writeMtimes() error {
	if r.detached {
		return nil
	}
	data := make([]byte, 0, 8*len(r.mtimes)+4)
	for _, m := range r.mtimes {
		data = binary.LittleEndian.AppendUint64(data, uint64(m))
	}
	data = binary.LittleEndian.AppendUint32(data, crc32.Checksum(data, castagnoli))
	return replaceFile(filepath.Join(r.dir, statFile), data)
}

// replaceFile writes a small file so that a reader, and a crash, sees the old
// content or the new. The file's owner holds a lock, so that one name does for
// what is on its way, and a crash leaves no more than that.
func replaceFile(path string, data []byte) error {
	f, err := os.OpenFile(path+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// readBounded reads a file of at most max bytes.
func readBounded(path string, max int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, int64(max)+1))
	if err == nil && len(data) > max {
		err = fmt.Errorf("%s is longer than %d bytes", filepath.Base(path), max)
	}
	return data, err
}

func writeNodes(path string, nodes [][]byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 256<<10)
	for _, n := range nodes {
		_, _ = w.Write(binary.AppendUvarint(nil, uint64(len(n)))) // the error is kept for Flush
		_, _ = w.Write(n)
	}
	return errors.Join(w.Flush(), f.Sync(), f.Close())
}

// readNodes calls yield with each node block of a tree file.
func readNodes(path string, yield func([]byte) error) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("block: tree: %w: %w", ErrDamaged, err)
	}
	defer f.Close()
	br, buf := bufio.NewReaderSize(f, 256<<10), []byte(nil)
	for {
		n, err := binary.ReadUvarint(br)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil && n > chunk.NodeMax {
			err = errors.New("node too long")
		}
		if err == nil {
			if uint64(cap(buf)) < n {
				buf = make([]byte, n)
			}
			buf = buf[:n]
			_, err = io.ReadFull(br, buf)
		}
		if err != nil {
			return fmt.Errorf("block: tree: %w: %w", ErrDamaged, err)
		}
		if err := yield(buf); err != nil {
			return err
		}
	}
}
