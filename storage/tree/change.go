package tree

import (
	"context"
	"io/fs"
	"slices"
	"time"

	"github.com/shoal-os/shoal/storage/tree/paths"
)

// MkdirOptions say how a folder is made.
type MkdirOptions struct {
	Parents bool        // make what is missing above it, and do nothing if the folder is there
	Mode    fs.FileMode // 0: 0755
	AnyName bool        // as in PutOptions
}

// Mkdir makes a folder. It is ErrExist if something is there, ErrNotExist if there is no folder for it.
func (t *Tree) Mkdir(ctx context.Context, path string, opt MkdirOptions) error {
	clean, err := paths.Clean(path)
	if err != nil {
		return fault("mkdir", path, err)
	}
	kind, missing, err := sight{Tree: t}.place(clean, rules{anyName: opt.AnyName})
	switch {
	case err != nil:
		return err
	case kind == Folder && opt.Parents:
		return nil
	case kind != 0:
		return fault("mkdir", clean, ErrExist)
	case len(missing) > 0 && !opt.Parents:
		return fault("mkdir", clean, ErrNotExist)
	}
	if opt.Mode == 0 {
		opt.Mode = folderMode
	}
	drafts := append(t.folders(missing), t.folderDraft(clean, opt.Mode, time.Time{}))
	return t.saveIf(ctx, drafts, func(d *draft) error { // another writer may have come in since the first look
		if i, ok := t.item(clean); d.path == clean && ok && (i.Kind != Folder || !opt.Parents) {
			return fault("mkdir", clean, ErrExist)
		}
		return t.recheck("mkdir", d)
	})
}

// folders makes drafts of missing folders.
func (t *Tree) folders(missing []string) (out []draft) {
	for _, dir := range missing {
		out = append(out, t.folderDraft(dir, folderMode, time.Time{}))
	}
	return out
}

// Remove takes away a file, or a folder: with all that is in it if recursive, else it must be empty. What was removed
// can be restored for 30 days. Removing a path with a conflict beside it leaves that one, which then gets the name. What
// is written there meanwhile stays.
func (t *Tree) Remove(ctx context.Context, path string, recursive bool) error {
	i, err := t.lookup("remove", path)
	if err != nil {
		return err
	}
	if i.Path == paths.Root {
		return fault("remove", i.Path, ErrPath)
	}
	if i.Kind == Folder && !recursive && t.inside(i.Path) > 0 {
		return fault("remove", i.Path, ErrNotEmpty)
	}
	return t.save(ctx, t.removals(t.below(i), newBatch()))
}

func (t *Tree) inside(dir string) int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.core.Inside(dir)
}

// removals takes away items as they were seen, the innermost first: whoever sees only some of it sees no file without its folder. A
// folder without a record of its own goes when it is empty.
func (t *Tree) removals(items []paths.Item, batch uint64) (out []draft) {
	for _, i := range slices.Backward(items) {
		if i.Head.ID.Defined() {
			out = append(out, removal(&i, batch))
		}
	}
	return out
}

// below returns an item and all that is in it, each folder before what it holds.
func (t *Tree) below(i paths.Item) []paths.Item {
	out := []paths.Item{i}
	if i.Kind == Folder {
		for item := range t.each(i.Path) {
			out = append(out, item)
		}
	}
	return out
}

// Move gives a file or a whole folder another path; no bytes move. What is at the new path is replaced if overwrite is
// true, else it is ErrExist; of a file, and of one in the same place of a folder, the larger number of wanted copies is
// kept. The folder of the new path must be there. It is no transaction: a crash in the midst may leave things at both
// paths, never at neither. What is written at the old path meanwhile was not moved, and stays there.
func (t *Tree) Move(ctx context.Context, from, to string, overwrite bool) error {
	return t.transfer(ctx, "move", from, to, overwrite, true)
}

// Copy puts the same file or folder at another path as well; no bytes are copied. The rest is as in Move.
func (t *Tree) Copy(ctx context.Context, from, to string, overwrite bool) error {
	return t.transfer(ctx, "copy", from, to, overwrite, false)
}

func (t *Tree) transfer(ctx context.Context, op, from, to string, overwrite, move bool) error {
	i, err := t.lookup(op, from)
	if err != nil {
		return err
	}
	clean, err := paths.Clean(to)
	if err != nil {
		return fault(op, to, err)
	}
	if clean == i.Path {
		return nil
	}
	if err := t.target(op, i, clean, overwrite, move); err != nil {
		return err
	}
	items := t.below(i)
	placed, err := t.placed(op, items, i.Path, clean)
	if err != nil {
		return err
	}
	batch := newBatch()
	if old, ok := t.item(clean); ok && overwrite {
		if err := t.save(ctx, t.removals(t.inTheWay(old, placed), batch)); err != nil {
			return err
		}
	}
	// What takes the name that it lost is one with its conflict from then on: that must not be removed.
	won := i.Conflict() && clean == i.Of
	taken := false // by another writer, since the first look
	err = t.saveIf(ctx, placed, func(d *draft) error {
		if !overwrite && d.path == clean { // what is in a folder comes after it
			_, taken = t.item(clean)
		}
		if taken {
			return fault(op, d.path, ErrExist)
		}
		return nil
	})
	if err != nil || !move || won {
		return err
	}
	return t.save(ctx, t.removals(items, batch))
}

// target checks where something is to be moved to.
func (t *Tree) target(op string, i paths.Item, to string, overwrite, move bool) error {
	if i.Path == paths.Root || paths.Inside(to, i.Path) || paths.Inside(i.Path, to) {
		return fault(op, to, ErrInside)
	}
	r := rules{}
	if move {
		r.except = i.Path
	}
	kind, missing, err := sight{Tree: t}.place(to, r)
	switch {
	case err != nil:
		return err
	case len(missing) > 0:
		return fault(op, missing[0], ErrNotExist)
	case kind != 0 && !overwrite:
		return fault(op, to, ErrExist)
	}
	return nil
}

// placed makes drafts of items under another path, with the contents that they have.
func (t *Tree) placed(op string, items []paths.Item, from, to string) ([]draft, error) {
	out := make([]draft, 0, len(items))
	for _, i := range items {
		path := to + i.Path[len(from):]
		if len(path) > paths.PathMax {
			return nil, fault(op, i.Path, ErrPath)
		}
		d := again(path, i.Head)
		if !i.Head.ID.Defined() {
			d = t.folderDraft(path, folderMode, time.Time{})
		}
		// Most programs save a document by moving a new file over it: that must not undo what somebody wished for it.
		if old, ok := t.item(path); ok && old.Kind == File && i.Kind == File {
			d.v.Copies = max(d.v.Copies, old.Head.Copies)
		}
		out = append(out, d)
	}
	return out, nil
}

// item is lookup for a clean path.
func (t *Tree) item(path string) (paths.Item, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.core.Lookup(path)
}

// inTheWay returns what is at and under an item and is not replaced by drafts of the same kind.
func (t *Tree) inTheWay(old paths.Item, placed []draft) (out []paths.Item) {
	kinds := make(map[string]Kind, len(placed))
	for i := range placed {
		kinds[placed[i].path] = placed[i].v.Kind
	}
	for _, i := range t.below(old) {
		if kinds[i.Path] != i.Kind || i.Conflict() {
			out = append(out, i)
		}
	}
	return out
}

// SetTimes changes when the contents of a file or folder were changed. Like every change it makes a version.
func (t *Tree) SetTimes(ctx context.Context, path string, mtime time.Time) error {
	return t.amend(ctx, "set times", path, func(v *paths.Version) { v.MTime = t.nanos(mtime) })
}

// SetMode changes the permission bits of a file or folder.
func (t *Tree) SetMode(ctx context.Context, path string, mode fs.FileMode) error {
	return t.amend(ctx, "set mode", path, func(v *paths.Version) { v.Mode = uint32(mode.Perm()) })
}

// SetCopies changes how many copies are wanted of a file, or of all files in a folder.
func (t *Tree) SetCopies(ctx context.Context, path string, copies int) error {
	i, err := t.lookup("set copies", path)
	if err != nil {
		return err
	}
	var out []draft
	for _, i := range t.below(i) {
		// A version of a conflict would be the latest and take the name from what has it.
		if i.Kind == File && i.Head.Copies != t.copies(copies) && !i.Conflict() {
			d := again(i.Path, i.Head)
			d.v.Copies = t.copies(copies)
			out = append(out, d)
		}
	}
	return t.save(ctx, out)
}

// amend writes a version that differs from the present one in what f changes.
func (t *Tree) amend(ctx context.Context, op, path string, f func(*paths.Version)) error {
	i, err := t.lookup(op, path)
	if err != nil {
		return err
	}
	switch {
	case i.Path == paths.Root:
		return nil // it has no record
	case i.Conflict():
		return fault(op, i.Path, ErrConflict)
	}
	d := again(i.Path, i.Head)
	if !i.Head.ID.Defined() {
		d = t.folderDraft(i.Path, folderMode, time.Time{})
	}
	was := d.v
	f(&d.v)
	if i.Head.ID.Defined() && d.v.MTime == was.MTime && d.v.Mode == was.Mode {
		return nil
	}
	return t.save(ctx, []draft{d})
}

// Restore makes an old version of a path the present one, and returns how many files and folders that brought back.
//
// With no version (the zero ID), of a path that was removed it undoes the removal: of a folder, of all that was
// removed together with it. Of a folder that is there it undoes the latest removal of anything in it; of a file it
// goes back to the contents before the present ones.
func (t *Tree) Restore(ctx context.Context, path string, id ID) (int, error) {
	clean, err := cleanFor("restore", path)
	if err != nil {
		return 0, err
	}
	back, err := t.toRestore(clean, id)
	if err != nil {
		return 0, fault("restore", clean, err)
	}
	_, missing, err := sight{Tree: t}.place(back[0].path, rules{anyName: true})
	if err != nil {
		return 0, err
	}
	return len(back), t.save(ctx, append(t.folders(missing), back...))
}

// toRestore finds the versions that Restore writes again, folders before what is in them; there is at least one.
func (t *Tree) toRestore(path string, id ID) ([]draft, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	history := t.core.History(path)
	shown, ok := t.core.Lookup(path)
	if ok && shown.Conflict() {
		path = shown.Of
	}
	for _, v := range history {
		switch {
		case id.Defined() && v.ID != id, v.Kind == Removed:
		case v.Kind == File && shown.Inside > 0 && id.Defined():
			return nil, ErrIsFolder
		case id.Defined(), ok && shown.Kind == File && !v.Same(&shown.Head) && slices.Contains(shown.Head.Replaces, v.ID):
			return []draft{again(path, v)}, nil
		}
	}
	if id.Defined() || ok && shown.Kind == File {
		return nil, ErrNotExist
	}
	if back := t.undo(path); len(back) > 0 {
		return back, nil
	}
	return nil, ErrNotExist
}

// before returns the latest of what a removal took away, if it is kept still. The caller holds mu.
func (t *Tree) before(path string, v *paths.Version) (paths.Version, bool) {
	for _, old := range t.core.History(path) {
		if old.Kind != Removed && slices.Contains(v.Replaces, old.ID) {
			return old, true
		}
	}
	return paths.Version{}, false
}

// undo finds what the latest removal at or under a path took away. The caller holds mu.
func (t *Tree) undo(path string) (back []draft) {
	var last paths.Version
	for p, v := range t.core.Removals(path) {
		if _, ok := t.before(p, &v); !ok {
			continue // it was purged
		}
		if p == path {
			last = v
			break
		}
		if last.ID == (ID{}) || v.Time > last.Time {
			last = v
		}
	}
	for p, v := range t.core.Removals(path) {
		if v.Batch != last.Batch || v.Author.Peer != last.Author.Peer {
			continue
		}
		if old, ok := t.before(p, &v); ok {
			back = append(back, again(p, old))
		}
	}
	slices.SortFunc(back, func(a, b draft) int { return comparePaths(a.path, b.path) })
	return back
}
