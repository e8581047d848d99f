package exchange

import (
	"crypto/sha256"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/storage/block"
	"github.com/shoal-os/shoal/storage/chunk"
)

// Private holds roots that are for members only.
type Private interface {
	// Root returns the record of a root, or false.
	Root(chunk.CID) (*block.Root, bool)
}

// circle is a root and who may know of it: everybody, or members only. A root
// may be fetched in both at once, without one knowing of the other.
type circle struct {
	root    chunk.CID
	private bool
}

// member reports whether a peer may know of private roots.
func (s *Swarm) member(p peer.ID) bool { return s.cfg.Member != nil && s.cfg.Member(p) }

// find looks up the record to serve to p. Whoever is no member gets the answer
// that the private roots do not change.
func (s *Swarm) find(id chunk.CID, p peer.ID) (root *block.Root, private, ok bool) {
	root, ok = s.cfg.Store.Root(id)
	if s.cfg.Private == nil || !s.member(p) {
		return root, false, ok
	}
	if hidden, held := s.cfg.Private.Root(id); held && (!ok || usable(hidden) >= usable(root)) {
		return hidden, true, true
	}
	return root, false, ok
}

// usable is how many leaves of a record can be served now.
func usable(r *block.Root) int {
	if r.Suspect() {
		return -1
	}
	return r.HaveCount()
}

// intact reports whether a leaf of a private root is what it should be. What is
// shared in public is hashed by whoever receives it and nobody else; a pool's
// own copies are what is left when a disk fails, so one that has rotted is to be
// found here, where it can be mended, and not by a member who takes us for a liar.
func (u *upload) intact(i int, data []byte) bool {
	if !u.private || sha256.Sum256(data) == u.reader.Tree().Leaves[i].CID.Sum {
		return true
	}
	u.swarm.log.Warn("a leaf of a piece is damaged on this disk", "root", u.root.CID(), "leaf", i)
	if err := u.root.Unmark(i); err != nil { // of a partial: it is fetched again
		u.swarm.log.Warn("record not updated", "root", u.root.CID(), "err", err)
	}
	if u.swarm.cfg.Damaged != nil {
		u.swarm.cfg.Damaged(u.root.CID())
	}
	return false
}

// members is who is known to be in the swarm of the root that u serves: those
// who ask us for it and those whom we ask. A stranger is told of nobody who has
// the root, or wants it, as a member.
func (u *upload) members() []peer.ID {
	s, root, all := u.swarm, u.root.CID(), u.member
	out := s.up.askers(root, all)
	if j := s.job(circle{root, false}); j != nil {
		out = append(out, j.sources(all)...)
	}
	if j := s.job(circle{root, true}); j != nil && all {
		out = append(out, j.sources(true)...)
	}
	return out
}

// introduce offers the one who asks us for a root to our own downloads of it:
// it has part of what we miss, or will.
func (u *upload) introduce() {
	info, root := peer.AddrInfo{ID: u.peer}, u.root.CID()
	for _, private := range []bool{false, true} {
		if j := u.swarm.job(circle{root, private}); j != nil {
			j.suggest(info, viaAsks)
		}
	}
}

// allowed reports whether a peer may be asked for the job's root.
func (j *job) allowed(p peer.ID) bool { return !j.spec.Private || j.swarm.member(p) }
