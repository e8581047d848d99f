package storage

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/shoal-os/shoal/storage/block"
	"github.com/shoal-os/shoal/storage/chunk"
)

// checkNames refuses a tree that this system cannot hold under its names.
func checkNames(tree *chunk.Tree) error {
	for i := range tree.Entries {
		path := tree.Entries[i].Path
		if path == "" {
			continue
		}
		if err := chunk.CheckName(baseName(path), runtime.GOOS); err != nil {
			return fmt.Errorf("%q cannot be written here: %w", path, err)
		}
	}
	return nil
}

// matches reports whether what lies at path is exactly tree: the same names,
// kinds, link targets and bytes, and nothing more.
func matches(ctx context.Context, path string, tree *chunk.Tree, progress func(done int64)) (bool, error) {
	found, skipped, err := scan(ctx, path)
	if err != nil || len(skipped) > 0 {
		return false, ctx.Err() // what cannot be read is not identical
	}
	of := found.match(tree)
	if of == nil {
		return false, nil
	}
	for i, k := range of {
		e := &tree.Entries[i]
		if found.targets[k] != e.Target || (e.Size >= 0 && found.all[k].size != e.Size) {
			return false, nil
		}
	}
	if progress == nil {
		progress = func(int64) {}
	}
	cids, err := hashAll(ctx, path, &found, progress)
	if err != nil {
		if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			return false, err
		}
		return false, nil
	}
	root, _, err := found.build(cids)
	if err != nil {
		return false, nil
	}
	if root == tree.Root && tree.Size < 0 {
		tree.Size = found.all[0].size
		tree.Entries[0].Size = tree.Size
		tree.Leaves[0].Size = int32(tree.Size)
	}
	return root == tree.Root, nil
}

// copyLeaves copies every wanted leaf that from has and that verifies into to,
// and returns how many are missing still. progress is told of bytes now and then.
func copyLeaves(ctx context.Context, from, to *block.Root, wants func(leaf int) bool, progress func(done int64)) (missing int, err error) {
	rd, err := from.NewReader()
	if err != nil {
		return 0, err
	}
	defer rd.Close()
	w, err := to.NewWriter()
	if err != nil {
		return 0, err
	}
	defer w.Close()
	tree := rd.Tree()
	var buf []byte
	var done int64
	stepEvery := 64
	for i := range tree.Leaves {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		if !wants(i) {
			continue
		}
		data, err := rd.ReadLeaf(i, buf[:0])
		if err != nil || sha256.Sum256(data) != tree.Leaves[i].CID.Sum {
			missing++
			continue
		}
		buf = data
		if err := w.WriteLeaf(i, data); err != nil {
			return 0, err
		}
		if err := to.Mark(i); err != nil {
			return 0, err
		}
		done += int64(len(data))
		if i%stepEvery == 0 {
			progress(done)
		}
	}
	return missing, nil
}

// copyLeaves copies what is wanted of from into to.
func (g *getting) copyLeaves(ctx context.Context, from, to *block.Root) (missing int, err error) {
	var rate rates
	size := to.Info().Size
	return copyLeaves(ctx, from, to, g.wants, func(done int64) {
		g.progress(Progress{Phase: "writing", Done: done, Total: size, Rate: rate.at(time.Now(), done)})
	})
}

// recheck reads every leaf that r claims and unmarks those that are not what
// they should be.
func recheck(ctx context.Context, r *block.Root, progress func(done int64)) error {
	rd, err := r.NewReader()
	if err != nil {
		return err
	}
	defer rd.Close()
	tree := rd.Tree()
	var bad []int
	var buf []byte
	var done int64
	for i := range tree.Leaves {
		if err := ctx.Err(); err != nil {
			return err
		}
		if !r.Has(i) {
			continue
		}
		data, err := rd.ReadLeaf(i, buf[:0])
		if err != nil || sha256.Sum256(data) != tree.Leaves[i].CID.Sum {
			bad = append(bad, i)
			continue
		}
		buf = data
		if done += int64(len(data)); i%64 == 0 {
			progress(done)
		}
	}
	r.Problem("") // a reader notes missing files as a problem; they are only missing leaves here
	return errors.Join(r.Unmark(bad...), r.Rechecked())
}

// recheckComplete reads a finished download again after a power cut may have
// cost it bytes, and says so if it did.
func (s *Storage) recheckComplete(r *block.Root) {
	same, err := matches(s.ctx, r.Info().Path, mustTree(r), nil)
	switch {
	case err != nil:
		return // closing
	case same:
		if err := r.Rechecked(); err != nil {
			s.log.Warn("record not updated", "root", r.CID(), "err", err)
		}
		s.syncLater(r)
	default:
		r.Problem("damaged since it was fetched, perhaps by a power cut: get it again")
	}
}

func mustTree(r *block.Root) *chunk.Tree {
	if t, err := r.Tree(); err == nil {
		return t
	}
	return &chunk.Tree{} // matches nothing
}
