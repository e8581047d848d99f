package paths

import (
	"slices"
	"time"

	"github.com/shoal-os/shoal/storage/directory/names"
)

const (
	// VersionsMax is how many replaced versions of one path are kept.
	VersionsMax = 32
	// recent is how many of them, the latest, are kept whatever their distances.
	recent = 8
)

// Due is a version whose record is to be deleted.
type Due struct {
	Path Hash
	ID   ID
}

// Expired returns the versions that were replaced or removed before a time, at most limit. A replaced one counts from
// the version that replaced it first. A removal goes last of all that is at its path, and only when nothing but
// removals was left there: should it be gone before what it removed, on some peer, then that would come up again there.
func (t *Tree) Expired(before time.Time, limit int) (out []Due) {
	bound := names.At(before)
	for hash, n := range t.byHash {
		for _, id := range n.expired(bound) {
			if len(out) == limit {
				return out
			}
			out = append(out, Due{hash, id})
		}
	}
	return out
}

func (n *node) expired(bound names.HLC) (out []ID) {
	if n.first == nil {
		return nil
	}
	if n.onlyRemoved() {
		for k := n.first; k != nil && n.first.time < bound; k = k.next {
			out = append(out, k.id)
		}
		return out
	}
	if n.first.next == nil { // as nearly always
		return nil
	}
	since := map[ID]names.HLC{} // when each was replaced first: later versions come first in the list
	for k := n.first; k != nil; k = k.next {
		for _, id := range k.behind() {
			since[id] = k.time
		}
	}
	for k := n.first; k != nil; k = k.next {
		if at, ok := since[k.id]; ok && k.flags&head == 0 && at < bound {
			out = append(out, k.id)
		}
	}
	return out
}

// onlyRemoved reports whether all that is left of a path is that it was removed, more than once if by several peers at
// the same time.
func (n *node) onlyRemoved() bool {
	for k := n.first; k != nil; k = k.next {
		if k.kind != Removed {
			return false
		}
	}
	return n.first != nil
}

// Noise returns those of the versions which next replaces that are not worth keeping: next's own author wrote them since
// a time, and they are empty, or next differs from them only in its mode and the time of its contents. Programs write a
// file in such steps: empty, to see whether they may, then its bytes, then its time.
//
// Only heads are among them, which no version names as replaced: not another peer's, who may want to go back to what it
// saw, nor one of the past. A peer that we have not heard of yet may have replaced one as well: then its version
// and next are both heads, as they would be anyway. What noise was in the way of stays replaced, since next names all
// that is behind; and next names the noise too, for peers that get the deletion later. Only if they get it before next
// do they show for a moment what was there before.
//
// Nothing is noise to a removal: what was removed can be restored as it was.
func (t *Tree) Noise(path string, next *Version, since names.HLC) (out []ID) {
	n := t.byHash[HashOf(path)]
	if n == nil {
		return nil
	}
	for k := n.first; k != nil && k.time >= since; k = k.next {
		if k.flags&head != 0 && k.author.Peer == next.Author.Peer && k.isNoise(next) && slices.Contains(next.Replaces, k.id) {
			out = append(out, k.id)
		}
	}
	return out
}

// isNoise reports whether next says all that k said, or k said nothing.
func (k *version) isNoise(next *Version) bool {
	switch {
	case k.kind != next.Kind || k.kind == Removed:
		return false
	case k.kind == File && k.size == 0:
		return true
	}
	return k.root == next.Root && k.size == next.Size && k.copies == next.Copies
}

// Trash returns the versions at and under a path that a head replaces: what is kept only so that it can be restored.
// Heads are not among them, so what is shown stays, conflicts included, and so do removals that nothing came after.
//
// A version goes only if a head itself names it and all that it names in turn, as heads nearly always do. So they can be
// deleted in any order, and wherever that breaks off nothing comes up again.
func (t *Tree) Trash(path string) (out []Due) {
	if n := t.byHash[HashOf(path)]; n != nil {
		n.trash(path, &out)
	}
	return out
}

func (n *node) trash(path string, out *[]Due) {
	if n.first != nil && n.first.next != nil {
		hash := HashOf(path)
		for _, id := range n.covered() {
			*out = append(*out, Due{hash, id})
		}
	}
	if n.dir == nil {
		return
	}
	for _, m := range n.dir.kids {
		m.trash(Join(path, m.name), out)
	}
}

// covered lists the versions of a path that are not needed to tell what it shows.
func (n *node) covered() (out []ID) {
	named := map[ID]bool{} // by heads
	for k := n.first; k != nil; k = k.next {
		if k.flags&head == 0 {
			continue
		}
		for _, id := range k.behind() {
			named[id] = true
		}
	}
	needed := func(id ID) bool { return !named[id] && n.find(id) != nil } // whatever names it
	for k := n.first; k != nil; k = k.next {
		if k.flags&head == 0 && named[k.id] && !slices.ContainsFunc(k.behind(), needed) {
			out = append(out, k.id)
		}
	}
	return out
}

// Covered reports whether Trash would still return a version.
func (t *Tree) Covered(d Due) bool {
	n := t.byHash[d.Path]
	return n != nil && slices.Contains(n.covered(), d.ID)
}

// Knows reports whether there is a version, or something shown, at a path or under it.
func (t *Tree) Knows(path string) bool { return t.byHash[HashOf(path)] != nil }

// Surplus returns the versions of a path to delete when one more is written, so that no more than VersionsMax replaced
// ones remain. What is restored after a slip is nearly always among the latest, or one of some time ago; so the
// latest stay, and of the others those that lie closest together for their age go first: the rest covers the time back
// to the oldest ever more loosely. Removals go before all others, as they hold nothing.
func (t *Tree) Surplus(path string) (out []ID) {
	n := t.byHash[HashOf(path)]
	if n == nil {
		return nil
	}
	var old []*version
	aside := -1 // heads that remain when what the path shows is replaced
	for k := n.first; k != nil; k = k.next {
		old = append(old, k)
		if k.flags&head != 0 {
			aside++
		}
	}
	for excess := len(old) - max(aside, 0) - VersionsMax; excess > 0; excess-- {
		i := thinnest(old)
		if i < 0 {
			break
		}
		out = append(out, old[i].id)
		old = slices.Delete(old, i, i+1)
	}
	return out
}

// thinnest picks the version of a list, the latest first, that will be missed least; -1 if none may go.
func thinnest(list []*version) int {
	best, least := -1, 0.0
	for i := recent; i < len(list); i++ {
		k := list[i]
		if k.flags&head != 0 {
			continue
		}
		if k.kind == Removed {
			return i
		}
		if i == len(list)-1 && best >= 0 {
			continue // the oldest
		}
		gap, age := float64(list[i-1].time), float64(list[0].time-k.time)
		if i+1 < len(list) {
			gap -= float64(list[i+1].time)
		} else {
			gap -= float64(k.time)
		}
		if weight := gap / max(age, 1); best < 0 || weight < least {
			best, least = i, weight
		}
	}
	return best
}
