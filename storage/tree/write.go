package tree

import (
	"context"
	"io/fs"
	"math/rand/v2"
	"time"

	"github.com/shoal-os/shoal/storage/block/piece"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/directory"
	"github.com/shoal-os/shoal/storage/directory/names"
	"github.com/shoal-os/shoal/storage/tree/paths"
)

// writeMax is how many versions are written before other writers get their turn.
const writeMax = 256

// draft is a version to be written: what it replaces is found out when that happens.
type draft struct {
	path string
	v    paths.Version
	head ID // if Defined, then it replaces this head rather than what the path shows, and nothing if that has gone

	takes *draft // the removal of a conflict whose name it takes; nil for most. It is written after it, and not without it.
}

// fileDraft is a new version of a file.
func (t *Tree) fileDraft(path string, f piece.File, mode fs.FileMode, mtime time.Time, copies int) draft {
	v := paths.Version{
		Kind: File, Root: f.Root, Size: f.Size, Mode: uint32(mode.Perm()), MTime: t.nanos(mtime), Copies: t.copies(copies),
	}
	if f.Size > paths.PieceMax {
		v.Pieces = make([]chunk.CID, 0, len(f.Pieces))
		for _, p := range f.Pieces {
			v.Pieces = append(v.Pieces, p.ID)
		}
	}
	return draft{path: path, v: v}
}

// folderDraft is a new version of a folder.
func (t *Tree) folderDraft(path string, mode fs.FileMode, mtime time.Time) draft {
	return draft{path: path, v: paths.Version{
		Kind: Folder, Mode: uint32(mode.Perm()), MTime: t.nanos(mtime), Copies: t.copies(0),
	}}
}

// removal takes away an item as it was seen: what somebody wrote at its path since then stays. All removals of one
// command share a batch. The path is that of the version, which is not a conflict's: its name is only lent to it.
func removal(i *paths.Item, batch uint64) draft {
	d := draft{path: i.Path, v: paths.Version{Kind: Removed, Batch: batch, Copies: 1}, head: i.Head.ID}
	if i.Conflict() {
		d.path = i.Of
	}
	return d
}

// newBatch numbers the removals of one command.
func newBatch() uint64 { return max(rand.Uint64(), 1) }

// again is a version with the contents of an old one, at any path.
func again(path string, v paths.Version) draft {
	v.Replaces, v.Batch, v.ID = nil, 0, ID{}
	return draft{path: path, v: v}
}

// nanos is a time in a version; that of now, for the zero time.
func (t *Tree) nanos(at time.Time) int64 {
	if at.IsZero() {
		at = t.cfg.Now()
	}
	// Beyond these years nanoseconds do not fit into 64 bits.
	if y := at.Year(); y < 1678 || y > 2261 {
		return 0
	}
	return at.UnixNano()
}

func (t *Tree) copies(n int) uint8 {
	if n <= 0 {
		n = t.cfg.Copies
	}
	return uint8(min(n, paths.CopiesMax))
}

// save writes drafts in order, and returns once they are durable here and can be seen. Each replaces what its path
// shows at that moment.
func (t *Tree) save(ctx context.Context, drafts []draft) error {
	return t.saveIf(ctx, drafts, nil)
}

// saveIf is save that asks check about each draft, as saveMany does.
func (t *Tree) saveIf(ctx context.Context, drafts []draft, check func(*draft) error) error {
	var faults faults
	if err := t.saveMany(ctx, drafts, check, &faults); err != nil {
		return err
	}
	return faults.err()
}

// saveMany is save for those who go on when single drafts fail. check, if not nil, is asked about each before, and its
// error leaves that one out.
func (t *Tree) saveMany(ctx context.Context, drafts []draft, check func(*draft) error, faults *faults) error {
	for len(drafts) > 0 {
		part := drafts[:min(len(drafts), writeMax)]
		drafts = drafts[len(part):]
		if err := t.savePart(ctx, part, check, faults); err != nil {
			return err
		}
	}
	return nil
}

func (t *Tree) savePart(ctx context.Context, part []draft, check func(*draft) error, faults *faults) error {
	t.writing.Lock()
	defer t.writing.Unlock()
	changes := make([]directory.Change, 0, len(part))
	for i := range part {
		d := &part[i]
		if check != nil {
			if err := check(d); err != nil {
				faults.fail(d, err)
				continue
			}
		}
		more, err := t.compose(d)
		if err == nil && d.takes != nil {
			var gone []directory.Change
			gone, err = t.compose(d.takes)
			more = append(more, gone...)
		}
		if err != nil {
			faults.fail(d, fault("write", d.path, err))
			continue
		}
		changes = append(changes, more...)
	}
	return t.write(ctx, changes)
}

// noiseAge is how long a version must have been there to be kept when another with nothing less in it comes after it.
const noiseAge = time.Minute

// compose makes the changes that write one version: its record, and then the deletion of versions that are too many, or
// were only steps on the way to it. The draft gets its author, what it replaces and its id. The caller holds writing.
func (t *Tree) compose(d *draft) ([]directory.Change, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	v := &d.v
	v.Author = &paths.Author{Peer: t.cfg.Self, Name: t.cfg.Name}
	v.Replaces = t.core.Replaced(d.path, d.head)
	if d.head.Defined() && len(v.Replaces) == 0 {
		return nil, nil // somebody else was faster
	}
	c, err := encodeVersion(d.path, v)
	if err != nil {
		return nil, err
	}
	hash, id, _ := parseFileKey(c.Key)
	v.ID = id
	out := []directory.Change{c}
	noise := t.core.Noise(d.path, v, names.At(t.cfg.Now().Add(-noiseAge)))
	for _, id := range append(noise, t.core.Surplus(d.path)...) {
		out = append(out, deletion(paths.Due{Path: hash, ID: id}))
	}
	return out, nil
}

// commit writes changes that replace nothing, such as deletions.
func (t *Tree) commit(ctx context.Context, changes []directory.Change) error {
	for len(changes) > 0 {
		part := changes[:min(len(changes), writeMax)]
		changes = changes[len(part):]
		t.writing.Lock()
		err := t.write(ctx, part)
		t.writing.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

// write makes changes durable and visible. The caller holds writing.
func (t *Tree) write(ctx context.Context, changes []directory.Change) error {
	if t.closed.Load() {
		return ErrClosed
	}
	if len(changes) == 0 {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	// Who leaves from here on does not take the changes back. If the turn passed on before it is known what becomes of them,
	// then the next writer would not see them and make a conflict; and bytes would be let go of that get a name after all.
	err := t.cfg.Names.Write(context.WithoutCancel(ctx), changes...)
	keys := make([]string, len(changes))
	for i, c := range changes {
		keys[i] = c.Key
	}
	t.apply(keys...) // after an error too: some may have been made
	return err
}

// timeOf is when a version was written: by its record, or by the clock if that is gone already.
func (t *Tree) timeOf(path string, id ID) names.HLC {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, v := range t.core.History(path) {
		if v.ID == id {
			return v.Time
		}
	}
	return names.At(t.cfg.Now())
}
