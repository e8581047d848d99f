package exchange

import (
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/storage/chunk"
)

// treePatience is how long the peer that sends the tree may be silent while
// another could be asked.
const treePatience = 5 * time.Second

// treeState is how far a job has come with the root's tree. One peer at a time
// sends it; each block is verified as it comes.
type treeState struct {
	treeFrom  peer.ID // who was asked; "" for nobody
	treeSlow  map[peer.ID]bool
	treeAt    time.Time // when it last sent a block, or was asked
	treeBytes int64
	walker    *chunk.Walker
	nodes     [][]byte
}

// needsTree reports that the tree is missing and nobody is sending it.
func (j *job) needsTree() bool {
	return j.sched == nil && j.treeFrom == "" && !j.spec.Root.IsRaw()
}

// claimTree says whether the peer about to be dialled is to be asked for the tree.
func (j *job) claimTree(p peer.ID, now time.Time) bool {
	if !j.needsTree() || j.treeSlow[p] {
		return false
	}
	j.treeFrom, j.treeAt = p, now
	j.walker, j.nodes, j.treeBytes = chunk.NewWalker(j.spec.Root, chunk.Limits{}), nil, 0
	return true
}

// wantTree asks an open session for the tree if nobody else is sending it.
func (j *job) wantTree(s *session) {
	if c := j.cands[j.treeFrom]; c != nil && c.dials && j.sched == nil {
		j.treeFrom = "" // it was to send the tree and is not even connected: who is here goes first
	}
	if j.claimTree(s.peer, time.Now()) {
		s.askTree()
	}
}

// askTree asks for the tree, unless it was asked for before, when another was
// given preference, and is on its way whole.
func (s *session) askTree() {
	owed := s.trees.Load()
	if owed > 0 && !s.ignored {
		return
	}
	s.stale = owed
	s.trees.Add(1)
	s.queue(appendHeader(nil, frameTree, 0))
}

// treeLost gives up on p as the tree's sender and asks another session.
func (j *job) treeLost(p peer.ID) {
	if j.treeFrom != p || j.sched != nil {
		return
	}
	j.treeFrom = ""
	for _, s := range j.sessions {
		if s.peer != p {
			j.wantTree(s)
		}
	}
}

// treeStalled turns to another session when the tree's sender is silent.
func (j *job) treeStalled(now time.Time) {
	if j.sched != nil || j.treeFrom == "" || now.Sub(j.treeAt) < treePatience {
		return
	}
	for _, s := range j.sessions {
		if s.peer != j.treeFrom && !j.treeSlow[s.peer] {
			if j.treeSlow == nil {
				j.treeSlow = map[peer.ID]bool{}
			}
			j.treeSlow[j.treeFrom] = true
			j.treeLost(j.treeFrom)
			return
		}
	}
	clear(j.treeSlow) // all have been slow: they may try again
}

// node takes in one block of the tree.
func (j *job) node(n note) error {
	<-n.sess.nodes
	if j.sched != nil || n.sess.peer != j.treeFrom || n.sess.stale > 0 || j.sessions[n.sess.id] != n.sess {
		n.sess.ignored = true
		return nil // of a sender that was given up
	}
	j.lastNews, j.treeAt = time.Now(), time.Now()
	err := j.walker.Add(n.node)
	switch {
	case err == nil:
		j.nodes = append(j.nodes, n.node)
		j.treeBytes += int64(len(n.node))
		return nil
	case errors.Is(err, chunk.ErrTree):
		// The bytes are what the root names: every provider would send the same.
		return fmt.Errorf("exchange: %s cannot be fetched: %w", j.spec.Root, err)
	}
	j.hangUp(n.sess, "sent a tree that does not match the root", true)
	return nil
}

// treeEnd takes in that the sender considers the tree complete.
func (j *job) treeEnd(s *session) error {
	if s.trees.Add(-1) < 0 {
		s.trees.Store(0) // nobody asked; it is harmless
	}
	s.ignored = false
	if s.stale > 0 {
		s.stale--
		return nil
	}
	if j.sched != nil || s.peer != j.treeFrom || j.sessions[s.id] != s {
		return nil
	}
	if _, more := j.walker.Next(); more {
		j.hangUp(s, "sent an incomplete tree", true)
		return nil
	}
	return j.treeDone()
}

// rawRoot begins on a root that is a leaf itself, and has no tree, as soon as
// somebody serves it: before that there should be no trace of it on the disk.
func (j *job) rawRoot() error {
	if j.sched != nil || !j.spec.Root.IsRaw() || len(j.sessions)+len(j.spec.Web) == 0 {
		return nil
	}
	return j.treeDone()
}

// treeDone begins the leaves' part with the verified tree.
func (j *job) treeDone() error {
	if j.walker == nil { // a raw root has no blocks above its leaf
		j.walker = chunk.NewWalker(j.spec.Root, chunk.Limits{})
	}
	tree, err := j.walker.Tree()
	if err != nil {
		return fmt.Errorf("exchange: %s cannot be fetched: %w", j.spec.Root, err)
	}
	root, err := j.spec.Begin(j.ctx, tree, j.nodes)
	if err != nil {
		return err
	}
	j.walker, j.nodes = nil, nil
	j.lastNews = time.Now()
	return j.begin(root)
}
