package tree

import (
	"context"

	"github.com/shoal-os/shoal/storage/directory"
	"github.com/shoal-os/shoal/storage/tree/paths"
)

// Purge deletes for good the versions at and under a path that were replaced or removed, rather than when they are 30
// days old, and returns how many. They cannot be restored then, by any peer. What is shown stays, conflicts included; so
// does, of what was removed, that it was: such a record takes no space and goes by itself. The path may be one that shows
// nothing any more. Of a conflict it is the path that it stands beside.
//
// Pieces that no other version names are collected after that as all are, so their space is not free at once.
//
// When it fails some may have been deleted; so many it says. It is safe to call at any time, on several peers too.
func (t *Tree) Purge(ctx context.Context, path string) (int, error) {
	clean, err := t.known("purge", path)
	if err != nil {
		return 0, err
	}
	t.mu.RLock()
	due := t.core.Trash(clean)
	t.mu.RUnlock()
	gone := 0
	for len(due) > 0 {
		part := due[:min(len(due), writeMax)]
		due = due[len(part):]
		n, err := t.purgePart(ctx, part)
		gone += n
		if err != nil {
			return gone, fault("purge", clean, err)
		}
	}
	return gone, nil
}

// purgePart deletes versions that are replaced still: nobody here writes between the look and the deletion.
func (t *Tree) purgePart(ctx context.Context, part []paths.Due) (int, error) {
	t.writing.Lock()
	defer t.writing.Unlock()
	changes := make([]directory.Change, 0, len(part))
	t.mu.RLock()
	for _, d := range part {
		if t.core.Covered(d) {
			changes = append(changes, deletion(d))
		}
	}
	t.mu.RUnlock()
	if err := t.write(ctx, changes); err != nil {
		return 0, err
	}
	return len(changes), nil
}

// deletion is the change that deletes a version.
func deletion(d paths.Due) directory.Change {
	return directory.Change{Key: fileKey(d.Path, d.ID), Delete: true}
}

// known finds the path that has versions, or something in it, by what somebody wrote for it.
func (t *Tree) known(op, path string) (string, error) {
	if i, err := t.lookup(op, path); err == nil {
		if i.Conflict() {
			return i.Of, nil
		}
		return i.Path, nil
	}
	clean, err := cleanFor(op, path)
	if err != nil {
		return "", err
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, form := range append(t.forms(path, clean), clean) {
		if t.core.Knows(form) {
			return form, nil
		}
	}
	return "", fault(op, clean, ErrNotExist)
}
