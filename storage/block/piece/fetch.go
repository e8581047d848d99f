package piece

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/shoal-os/shoal/storage/block"
	"github.com/shoal-os/shoal/storage/block/pack"
	"github.com/shoal-os/shoal/storage/chunk"
)

// checkLarge makes sure that a tree is that of a large piece: one file, cut as chunk.FileDAG does, of one node. ErrNotPiece
// if not.
func checkLarge(tree *chunk.Tree, nodes [][]byte) error {
	bad := fmt.Errorf("piece: %s: %w", tree.Root, ErrNotPiece)
	if len(nodes) != 1 || len(tree.Entries) != 1 || tree.Entries[0].Kind != chunk.File {
		return bad
	}
	if n := len(tree.Leaves); n < 2 || n > chunk.LinksMax || tree.Size <= int64(n-1)*chunk.LeafSize || tree.Size > int64(n)*chunk.LeafSize {
		return bad
	}
	leaves := make([]chunk.CID, 0, len(tree.Leaves))
	for i := range tree.Leaves {
		leaves = append(leaves, tree.Leaves[i].CID)
	}
	root, want := chunk.FileDAG(leaves, tree.Size)
	if root.CID != tree.Root || !bytes.Equal(want[0].Data, nodes[0]) {
		return bad
	}
	return nil
}

// BeginLarge reserves room for a large piece and gives its partial root: a new one, or what an earlier fetch left, of which
// only verified leaves are claimed. A piece that is held, or was set aside, is given whole. In each case it is locked
// until FinishLarge or StopLarge. ErrNotPiece: no piece has such a tree. ErrQuota: there is no room.
func (s *Store) BeginLarge(tree *chunk.Tree, nodes [][]byte) (*block.Root, error) {
	if err := checkLarge(tree, nodes); err != nil {
		return nil, err
	}
	id := tree.Root
	s.mu.Lock()
	s.lock(id)
	s.mu.Unlock()
	r, err := s.beginLarge(id, tree, nodes)
	if err == nil && r.Info().State == block.Partial && r.Suspect() {
		err = recheck(r)
	}
	if err != nil {
		s.mu.Lock()
		s.unlock(id)
		s.mu.Unlock()
		return nil, fmt.Errorf("piece: begin %s: %w", id, err)
	}
	return r, nil
}

func (s *Store) beginLarge(id chunk.CID, tree *chunk.Tree, nodes [][]byte) (*block.Root, error) {
	s.naming.Lock()
	defer s.naming.Unlock()
	s.Restore(id)
	if r, ok := s.roots.Root(id); ok {
		return r, nil
	}
	if err := s.reopenDamaged(id); err != nil {
		return nil, err
	}
	s.mu.Lock()
	have := s.partial[id]
	s.mu.Unlock()
	more := max(0, roundUp(tree.Size+recordCost)-have)
	if err := s.reserve(more); err != nil {
		return nil, err
	}
	r, err := s.roots.Begin(tree, nodes, id.String(), s.path(largeName(id)))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sums.reserved -= more
	if err == nil {
		s.setPartial(id, tree.Size+recordCost)
	}
	return r, err
}

// reopenDamaged makes a damaged piece one that is being fetched: most of it is good.
func (s *Store) reopenDamaged(id chunk.CID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.index.get(id)
	if !ok {
		return nil
	}
	if err := s.fs.Rename(largeName(id), partName(id)); err != nil && !isGone(err) {
		return err
	}
	s.remove(id)
	delete(s.aside, id)
	s.marks.add(line("back %s", id))
	s.setPartial(id, int64(l.size))
	return nil
}

// recheck reads what a partial claims and unmarks what is wrong.
func recheck(r *block.Root) error {
	rd, err := r.NewReader()
	if err != nil {
		return err
	}
	defer rd.Close()
	var bad []int
	var buf []byte
	leaves := rd.Tree().Leaves
	for i := range leaves {
		if !r.Has(i) {
			continue
		}
		if buf, err = rd.ReadLeaf(i, buf[:0]); err != nil || chunk.SumRaw(buf) != leaves[i].CID {
			bad = append(bad, i)
		}
	}
	r.Problem("") // a reader notes a missing file as one; here it is only missing leaves
	return errors.Join(r.Unmark(bad...), r.Rechecked())
}

// FinishLarge makes a piece durable whose leaves are all here, and holds it. The root stays good for whoever has it. The
// lock of BeginLarge is gone when it returns without an error.
func (s *Store) FinishLarge(ctx context.Context, r *block.Root) error {
	id := r.CID()
	err := ctx.Err()
	if err == nil {
		err = s.finishLarge(id, r)
	}
	if err == nil {
		err = s.marks.sync()
	}
	if err != nil {
		return fmt.Errorf("piece: finish %s: %w", id, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unlock(id)
	return nil
}

func (s *Store) finishLarge(id chunk.CID, r *block.Root) error {
	s.naming.Lock()
	defer s.naming.Unlock()
	if s.Has(id) {
		s.mu.Lock()
		left := s.partial[id] > 0
		s.mu.Unlock()
		if left { // a batch was first
			return s.dropPartial(id)
		}
		return nil
	}
	i := r.Info()
	if i.HaveLeaves != i.Leaves {
		return fmt.Errorf("only %d of %d leaves are here", i.HaveLeaves, i.Leaves)
	}
	var node []byte
	if err := r.Nodes(func(b []byte) error { node = slices.Clone(b); return nil }); err != nil {
		return err
	}
	if i.State == block.Partial {
		// The bytes first: of a piece that was here before, a frame may be in the packs still, and speaks for whatever the next
		// start finds under the name.
		if err := s.fs.SyncFile(partName(id)); err != nil {
			return err
		}
		if err := r.Finish(true); err != nil {
			return err
		}
	}
	if err := errors.Join(s.fs.SyncFile(largeName(id)), s.fs.Sync(largeDir)); err != nil {
		return err
	}
	l, err := s.appendDurable(id, node, i.Size)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.take(id, l)
	s.settle(l)
	s.setPartial(id, 0)
	s.addView(id, r)
	s.mu.Unlock()
	return s.roots.Release(r, s.kept(id, i.Size))
}

// appendDurable writes one frame and syncs it. It is pending.
func (s *Store) appendDurable(id chunk.CID, data []byte, size int64) (loc, error) {
	cost := pack.Cost(len(data))
	if err := s.reserve(cost); err != nil {
		return loc{}, err
	}
	defer s.unreserve(cost)
	fails := s.packs.Fails()
	l, err := s.append(id, data, size)
	if err != nil {
		return loc{}, err
	}
	if err := s.packs.Sync(fails); err != nil {
		s.drop(l)
		return loc{}, err
	}
	return l, nil
}

// StopLarge ends BeginLarge without FinishLarge. With forget, what came is deleted unless somebody else fetches it too;
// else the next BeginLarge goes on with it, and Collect deletes it if nothing names the piece.
func (s *Store) StopLarge(r *block.Root, forget bool) error {
	id := r.CID()
	s.mu.Lock()
	s.unlock(id)
	forget = forget || s.index.has(id) && s.partial[id] > 0 // a batch was first: nobody goes on with what came
	s.mu.Unlock()
	if !forget {
		return nil
	}
	if err := s.dropUnlocked(id); err != nil {
		return fmt.Errorf("piece: stop %s: %w", id, err)
	}
	return nil
}
