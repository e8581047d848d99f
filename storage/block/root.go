package block

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
	"weak"

	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/chunk/bitfield"
)

// State is how a root's bytes came to be here.
type State string

const (
	// Indexed: the user's own files, shared in place.
	Indexed State = "indexed"
	// Partial: being fetched; Have says which leaves are verified and written.
	Partial State = "partial"
	// Complete: fetched whole, under its own name.
	Complete State = "complete"
)

// Root is what this peer holds of one root. It is safe for concurrent use.
type Root struct {
	// Uploaded counts leaf bytes served since the peer started.
	Uploaded atomic.Int64

	mu     sync.Mutex
	dir    string // its record's folder
	meta   meta
	mtimes []int64            // per file in walk order; nil while partial
	have   *bitfield.Bitfield // nil unless partial
	haveF  *os.File           // the persisted bitfield, open while it is being written
	tree   weak.Pointer[chunk.Tree]
	leaves int
	why    string // what is wrong with it, in words; "" when nothing is

	// pin keeps the tree of a root whose record's folder does not have it.
	pin *chunk.Tree
	// detached: the store forgot or replaced this record, and its folder is
	// another's. Whoever works on it still ends that work in memory.
	detached bool
	suspect  bool // see Suspect
	// source reads the one node of a root that has no folder of its own, see Kept.
	source func() ([]byte, error)

	watch chan struct{} // see Changed; nil when nobody waits
}

// Info is a snapshot of a root's record.
type Info struct {
	Root        chunk.CID
	Name, Path  string
	State       State
	Size        int64 // bytes of all files; -1 while unknown
	Files       int
	Leaves      int
	HaveLeaves  int
	Added       time.Time
	Problem     string // what is wrong, in words; "" when nothing is
	PartialPath string // where the partial lies; "" unless Partial
	Web         []string
	Placed      bool // a partial folder that holds all that was chosen of it, see Place
}

// Info returns a snapshot of the record.
func (r *Root) Info() Info {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := Info{
		Root: r.meta.Root, Name: r.meta.Name, Path: r.meta.Path, State: r.meta.State, Size: r.meta.Size,
		Files: r.meta.Files, Leaves: r.leaves, HaveLeaves: r.leaves, Added: r.meta.Added, Problem: r.why,
		Web: r.meta.Web,
	}
	if r.have != nil {
		i.HaveLeaves = r.have.Count()
	}
	if r.meta.State == Partial {
		i.PartialPath, i.Placed = r.where(), r.meta.Placed
	}
	return i
}

// CID names the root.
func (r *Root) CID() chunk.CID { return r.meta.Root }

// Leaves is the number of leaf positions in the tree.
func (r *Root) Leaves() int { return r.leaves }

// adopt takes from tree what the record keeps of it.
func (r *Root) adopt(tree *chunk.Tree) {
	r.meta.Files, r.meta.Leaves = tree.Files, len(tree.Leaves)
	r.leaves = len(tree.Leaves)
	r.fixSize(tree)
	r.tree = weak.Make(tree)
	if r.meta.State == Partial && r.have == nil {
		r.have = bitfield.New(r.leaves)
	}
}

// fixSize gives a raw root the size that its tree alone cannot tell.
func (r *Root) fixSize(tree *chunk.Tree) {
	if tree.Size >= 0 || r.meta.Size < 0 || len(tree.Leaves) != 1 {
		return
	}
	tree.Size = r.meta.Size
	tree.Leaves[0].Size = int32(r.meta.Size)
	tree.Entries[0].Size = r.meta.Size
}

// Tree returns the root's tree, reading and verifying it again if nobody uses
// it at the moment: an idle share costs no memory for its names.
func (r *Root) Tree() (*chunk.Tree, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t := r.tree.Value(); t != nil {
		return t, nil
	}
	w := chunk.NewWalker(r.meta.Root, chunk.Limits{})
	err := r.readNodes(w.Add)
	if err != nil {
		return nil, fmt.Errorf("block: tree of %s: %w: %w", r.meta.Root, ErrDamaged, err)
	}
	t, err := w.Tree()
	if err == nil && (len(t.Leaves) != r.leaves || t.Files != r.meta.Files) {
		err = fmt.Errorf("it has %d leaves in %d files", len(t.Leaves), t.Files)
	}
	if err != nil {
		return nil, fmt.Errorf("block: tree of %s: %w: %w", r.meta.Root, ErrDamaged, err)
	}
	r.fixSize(t)
	r.tree = weak.Make(t)
	return t, nil
}

// Nodes calls yield with each non-leaf block in walk order. The slice is
// yield's only until it returns.
func (r *Root) Nodes(yield func([]byte) error) error {
	r.mu.Lock()
	at := &Root{dir: r.dir, source: r.source}
	r.mu.Unlock()
	return at.readNodes(yield)
}

// Has reports whether leaf i is verified and present.
func (r *Root) Has(i int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.has(i)
}

func (r *Root) has(i int) bool {
	if r.have != nil {
		return r.have.Has(i)
	}
	return i >= 0 && i < r.leaves
}

// Have returns a copy of the set of leaves present, and whether it is all of
// them for good.
func (r *Root) Have() (have *bitfield.Bitfield, whole bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.have == nil {
		return bitfield.Full(r.leaves), true
	}
	return r.have.Clone(), false
}

// HaveCount is the number of leaves present.
func (r *Root) HaveCount() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.have == nil {
		return r.leaves
	}
	return r.have.Count()
}

// HaveSince returns, as at most max runs, the leaves present that are not in
// old, and adds them to old.
func (r *Root) HaveSince(old *bitfield.Bitfield, max int) []bitfield.Run {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.have == nil {
		return bitfield.Full(r.leaves).RunsSince(old, max)
	}
	return r.have.RunsSince(old, max)
}

// Mark records leaves as verified and written: in memory, and in the persisted
// bitfield so that they outlive this process. The bytes must be with the
// operating system already (WriteLeaf returned).
func (r *Root) Mark(leaves ...int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.have == nil {
		return nil
	}
	low, high := -1, -1
	for _, i := range leaves {
		if !r.have.Set(i) {
			continue
		}
		if low < 0 || i/8 < low {
			low = i / 8
		}
		high = max(high, i/8)
	}
	if low < 0 {
		return nil
	}
	defer r.changed()
	return r.persist(low, high+1)
}

// Unmark forgets leaves that turned out not to be what they should.
func (r *Root) Unmark(leaves ...int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.have == nil {
		return nil
	}
	for _, i := range leaves {
		r.have.Clear(i)
	}
	return r.persist(0, (r.leaves+7)/8)
}

// persist writes bytes [from, to) of the bitfield through.
func (r *Root) persist(from, to int) error {
	if r.detached {
		return nil
	}
	if r.haveF == nil {
		f, err := os.OpenFile(filepath.Join(r.dir, haveFile), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return fmt.Errorf("block: bitfield of %s: %w", r.meta.Root, err)
		}
		r.haveF = f
	}
	if _, err := r.haveF.WriteAt(r.have.Slice(from, to), int64(from)); err != nil {
		return fmt.Errorf("block: bitfield of %s: %w", r.meta.Root, err)
	}
	return nil
}

// Problem notes in words what is wrong with a root, for its owner to see; ""
// clears it.
func (r *Root) Problem(why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.why = why
}

// Trusted reports whether the bytes that Have claims can be believed without
// reading them again. They can when they were written since this machine
// started (the kernel holds what it was given even if the peer was killed; a
// power cut may have lost it) and nothing wrote to them after the last claim.
func (r *Root) Trusted() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.meta.Boot == "" {
		return r.meta.State != Partial || r.meta.Placed
	}
	if r.meta.Boot != bootID() {
		return false
	}
	if r.meta.State != Partial {
		return true
	}
	claimed, err := os.Stat(filepath.Join(r.dir, haveFile))
	if err != nil {
		return r.have.Count() == 0
	}
	return r.meta.Placed || !newerThan(r.where(), claimed.ModTime().Add(claimSlack))
}

// unknownBoot starts the boot id of a machine that has none to offer.
const unknownBoot = "unknown-"

// claimSlack allows for the time between writing bytes and claiming them.
const claimSlack = 2 * time.Second

// newerThan reports whether any file at or below path was modified after t, or
// a folder, since a file taken away shows only there. What cannot be looked at
// counts as modified.
func newerThan(path string, t time.Time) bool {
	return filepath.WalkDir(path, func(_ string, d os.DirEntry, err error) error {
		if err != nil || !(d.Type().IsRegular() || d.IsDir()) {
			return err
		}
		fi, err := d.Info()
		if err == nil && fi.ModTime().After(t) {
			return errChangedSince
		}
		return err
	}) != nil
}

var errChangedSince = errors.New("changed since")

// NeedsSync reports whether finished bytes may be with the operating system only.
func (r *Root) NeedsSync() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.meta.State == Complete && r.meta.Boot != ""
}

// Synced records that the root's bytes and record are on the disk itself, so
// that a power cut cannot lose them. The caller has synced the file system.
func (r *Root) Synced() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if (r.meta.State == Partial && !r.meta.Placed) || r.meta.Boot == "" || r.detached {
		return nil
	}
	r.meta.Boot = ""
	return r.writeMeta()
}

// Suspect reports that the bytes may not be what the record claims (they were
// not Trusted when the store was opened) and nobody has read them again since.
// Such a root is not to be served: whoever got wrong bytes would take this peer
// for a liar.
func (r *Root) Suspect() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.suspect
}

// Rechecked records that the caller has read every byte that the record claims
// and unmarked what was wrong, so that it can be Trusted from now on.
func (r *Root) Rechecked() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.suspect = false
	if r.meta.Boot == bootID() || (r.meta.State != Partial && r.meta.Boot == "") {
		return nil
	}
	r.meta.Boot = bootID()
	return r.writeMeta()
}

// detach cuts the root off its folder, which is removed or becomes another's.
func (r *Root) detach() {
	r.close()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.detached = true
	r.pin = r.tree.Value()
	r.changed()
}

func (r *Root) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.haveF != nil {
		_ = r.haveF.Close()
		r.haveF = nil
	}
}
