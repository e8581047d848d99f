package block

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"

	"github.com/shoal-os/shoal/storage/chunk"
)

// Kept is a finished file of one node whose record somebody else keeps.
type Kept struct {
	Root chunk.CID
	Path string // of the file
	Size int64
	Node func() ([]byte, error) // reads the one non-leaf block
}

// NewKept makes a root of it, whole and without a record of its own. Its leaves are of chunk.LeafSize but the last.
// Nothing says whether its bytes are what they were: whoever reads them has to verify.
func NewKept(k Kept) *Root {
	r := &Root{leaves: int((k.Size + chunk.LeafSize - 1) / chunk.LeafSize)}
	r.keep(k)
	return r
}

// keep turns the root into k, which has the same name: that is read without a lock, so it is not written again. The
// caller holds mu, or is alone.
func (r *Root) keep(k Kept) {
	if r.meta.Root != k.Root {
		r.meta.Root = k.Root
	}
	m := &r.meta
	m.Version, m.Name, m.State, m.Path, m.Size = metaVersion, k.Root.String(), Complete, k.Path, k.Size
	m.Files, m.Leaves = 1, r.leaves
	m.Placed, m.Web, m.Limit, m.Boot = false, nil, nil, ""
	r.source, r.detached = k.Node, true
}

// SetFinder has Root ask find for what the store has no record of. It is called before the store is used.
func (s *Store) SetFinder(find func(chunk.CID) (*Root, bool)) { s.find = find }

// Release ends the record of a finished root, which goes on as k.
func (s *Store) Release(r *Root, k Kept) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.close()
	r.mu.Lock()
	dir := r.dir
	r.keep(k)
	r.changed()
	r.mu.Unlock()
	if s.roots[k.Root] != r {
		return nil // another's folder
	}
	delete(s.roots, k.Root)
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("block: remove %s: %w", k.Root, err)
	}
	return nil
}

// Withdraw makes the root Suspect, so that nobody else is served from it.
func (r *Root) Withdraw() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.suspect = true
	r.changed()
}

// readNodes calls yield with each node block of the root.
func (r *Root) readNodes(yield func([]byte) error) error {
	if r.source == nil {
		return readNodes(filepath.Join(r.dir, treeFile), yield)
	}
	node, err := r.source()
	if err != nil {
		return fmt.Errorf("block: tree: %w: %w", ErrDamaged, err)
	}
	return yield(node)
}

// nodeInMemory is the file that Nodes reads of a root without a record.
type nodeInMemory struct{ *bytes.Reader }

func (nodeInMemory) Close() error { return nil }
