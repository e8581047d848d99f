package block

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/shoal-os/shoal/storage/chunk"
)

// Nodes reads the non-leaf blocks of a root by name. It knows where each lies
// and keeps none in memory. It is safe for concurrent use.
type Nodes struct {
	file interface { // nil once closed
		io.Reader
		io.ReaderAt
		io.Closer
	}
	at map[chunk.CID]span
	mu sync.Mutex
}

// span is where a node's bytes lie.
type span struct {
	offset int64
	size   int32
}

// OpenNodes finds the root's non-leaf blocks. Close it. It goes on to work when
// the root's record is replaced or removed.
func (r *Root) OpenNodes() (*Nodes, error) {
	r.mu.Lock()
	path, source := filepath.Join(r.dir, treeFile), r.source
	r.mu.Unlock()
	n := &Nodes{at: map[chunk.CID]span{}}
	if source != nil {
		node, err := source()
		if err != nil {
			return nil, fmt.Errorf("block: nodes: %w: %w", ErrDamaged, err)
		}
		data := binary.AppendUvarint(nil, uint64(len(node)))
		n.file = nodeInMemory{bytes.NewReader(append(data, node...))}
	} else {
		f, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("block: nodes: %w: %w", ErrDamaged, err)
		}
		n.file = f
	}
	if err := n.index(); err != nil {
		_ = n.file.Close()
		return nil, fmt.Errorf("block: nodes: %w: %w", ErrDamaged, err)
	}
	return n, nil
}

func (n *Nodes) index() error {
	br, buf := bufio.NewReaderSize(n.file, 256<<10), []byte(nil)
	for offset := int64(0); ; {
		size, err := binary.ReadUvarint(br)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil && size > chunk.NodeMax {
			err = errors.New("node too long")
		}
		if err != nil {
			return err
		}
		offset += int64(len(binary.AppendUvarint(nil, size)))
		buf = grow(buf[:0], int(size))
		if _, err := io.ReadFull(br, buf); err != nil {
			return err
		}
		n.at[chunk.SumNode(buf)] = span{offset, int32(size)}
		offset += int64(size)
	}
}

// Read returns the block that is named, verified, or ErrNotFound.
func (n *Nodes) Read(id chunk.CID) ([]byte, error) {
	s, ok := n.at[id]
	if !ok {
		return nil, fmt.Errorf("block: node %s: %w", id, ErrNotFound)
	}
	data := make([]byte, s.size)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.file == nil {
		return nil, fmt.Errorf("block: node %s: %w", id, os.ErrClosed)
	}
	if _, err := n.file.ReadAt(data, s.offset); err != nil {
		return nil, fmt.Errorf("block: node %s: %w: %w", id, ErrDamaged, err)
	}
	if sha256.Sum256(data) != id.Sum {
		return nil, fmt.Errorf("block: node %s: %w", id, ErrDamaged)
	}
	return data, nil
}

// Close releases the file.
func (n *Nodes) Close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.file != nil {
		_ = n.file.Close()
		n.file = nil
	}
}
