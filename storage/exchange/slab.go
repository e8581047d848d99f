package exchange

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/storage/block"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/chunk/bitfield"
	"github.com/shoal-os/shoal/storage/chunk/pair"
	"github.com/shoal-os/shoal/storage/exchange/sched"
)

const (
	slabSize  = 1 << 20 // bytes of one buffer: a leaf of ours, or many small ones
	slabsMax  = 24      // buffers of one download that wait to be verified
	slabItems = 512     // leaves in one buffer
)

// slab is a buffer of leaves that one peer sent, on its way to be verified.
type slab struct {
	buf   []byte
	items []item
	from  sched.Peer
	peer  peer.ID
}

// item is one leaf of a slab: its bytes end at end, and begin where the one before ends.
type item struct {
	leaf  int
	end   int
	right bool // its bytes are those that the tree names; see verifier.compare
}

// slabs keeps buffers for the next leaves, the one last used on top since it is
// in the caches still. It needs no bound of its own: a session fills one at a
// time, and job.work bounds those that wait. A session must never wait for
// another's: one that stops in mid-leaf would hold up the rest.
type slabs struct {
	mu   sync.Mutex
	idle []*slab
}

func (c *slabs) take() *slab {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := len(c.idle) - 1
	if k < 0 {
		return &slab{buf: make([]byte, 0, slabSize)}
	}
	s := c.idle[k]
	c.idle = c.idle[:k]
	s.buf, s.items = s.buf[:0], s.items[:0]
	return s
}

func (c *slabs) put(s *slab) {
	if cap(s.buf) > slabSize {
		return // an odd large one of a foreign root
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.idle = append(c.idle, s)
}

// runs groups a slab's leaves into runs.
func (s *slab) runs() []bitfield.Run {
	var out []bitfield.Run
	for _, it := range s.items {
		if k := len(out) - 1; k >= 0 && out[k].First+out[k].Count == it.leaf {
			out[k].Count++
		} else {
			out = append(out, bitfield.Run{First: it.leaf, Count: 1})
		}
	}
	return out
}

// verifier checks slabs against the tree and writes what is right. It is for
// one goroutine; a download has several.
type verifier struct {
	root *block.Root
	tree *chunk.Tree
	w    *block.Writer
	same map[int32][]int32 // see sameLeaves
	good []int
}

// compare hashes the leaves of slabs, two at a time (see package pair), and notes
// which are right. What is here already is taken for right.
func (v *verifier) compare(slabs ...*slab) {
	var waiting *item
	var bytes []byte
	for _, s := range slabs {
		start := 0
		for k := range s.items {
			it := &s.items[k]
			data := s.buf[start:it.end]
			start = it.end
			if v.root.Has(it.leaf) {
				it.right = true
				continue
			}
			if waiting == nil {
				waiting, bytes = it, data
				continue
			}
			one, two := pair.Sum256(bytes, data)
			waiting.right, it.right = v.is(waiting, one), v.is(it, two)
			waiting = nil
		}
	}
	if waiting != nil {
		waiting.right = v.is(waiting, sha256.Sum256(bytes))
	}
}

func (v *verifier) is(it *item, sum [sha256.Size]byte) bool {
	return unverified || v.tree.Leaves[it.leaf].CID.Sum == sum
}

// keep writes what is right of a slab that was compared. It returns the runs that
// are verified and written and those that are not what was asked for. err is this machine's failure (a full disk), or the
// tree's (a leaf whose length it states wrongly), never the sender's.
func (v *verifier) keep(s *slab) (good, bad []bitfield.Run, err error) {
	v.good = v.good[:0]
	ok, wrong := slab{}, slab{}
	start := 0
	for _, it := range s.items {
		data := s.buf[start:it.end]
		start = it.end
		if !it.right {
			wrong.items = append(wrong.items, it)
			continue
		}
		if v.root.Has(it.leaf) {
			ok.items = append(ok.items, it) // came twice
			continue
		}
		if err := v.write(it.leaf, data); err != nil {
			return ok.runs(), wrong.runs(), errors.Join(err, v.root.Mark(v.good...))
		}
		ok.items = append(ok.items, it)
	}
	return ok.runs(), wrong.runs(), v.root.Mark(v.good...)
}

// write puts a verified leaf everywhere it occurs.
func (v *verifier) write(i int, data []byte) error {
	leaf := &v.tree.Leaves[i]
	if leaf.Size < 0 {
		if err := v.root.SetSize(int64(len(data))); err != nil {
			return err
		}
	} else if int(leaf.Size) != len(data) {
		return fmt.Errorf("exchange: leaf %d: %w: it says %d bytes and has %d", i, chunk.ErrTree, leaf.Size, len(data))
	}
	if err := v.w.WriteLeaf(i, data); err != nil {
		return err
	}
	v.good = append(v.good, i)
	for _, twin := range v.same[int32(i)] {
		if v.root.Has(int(twin)) {
			continue
		}
		if int(v.tree.Leaves[twin].Size) != len(data) {
			return fmt.Errorf("exchange: leaf %d: %w: sizes differ", twin, chunk.ErrTree)
		}
		if err := v.w.WriteLeaf(int(twin), data); err != nil {
			return err
		}
		v.good = append(v.good, int(twin))
	}
	return nil
}

// pairWait is how long a slab waits for a second one to be hashed with, which halves what both cost. While leaves come
// more slowly than that, the processor has nothing better to do than to hash them one by one.
const pairWait = time.Millisecond

// startVerifiers starts the goroutines that hash and write.
func (j *job) startVerifiers() error {
	turn := make(chan struct{}, 1) // held while slabs are taken: two that take one each would have none to pair it with
	for range max(2, runtime.GOMAXPROCS(0)) {
		w, err := j.root.NewWriter()
		if err != nil {
			return err
		}
		v := &verifier{root: j.root, tree: j.tree, w: w, same: j.same}
		j.tasks.Go(func() {
			defer w.Close()
			timer := time.NewTimer(pairWait)
			defer timer.Stop()
			for {
				select {
				case turn <- struct{}{}:
				case <-j.ctx.Done():
					return
				}
				slabs := j.takeWork(timer)
				<-turn
				if len(slabs) == 0 {
					return
				}
				v.compare(slabs...)
				for _, s := range slabs {
					j.keep(v, s)
				}
			}
		})
	}
	return nil
}

// takeWork waits for a slab, and a little for a second one. None: the job has ended.
func (j *job) takeWork(timer *time.Timer) []*slab {
	var first *slab
	select {
	case first = <-j.work:
	case <-j.ctx.Done():
		return nil
	}
	timer.Reset(pairWait)
	select {
	case second := <-j.work:
		return []*slab{first, second}
	case <-timer.C:
	case <-j.ctx.Done():
	}
	return []*slab{first}
}

// keep has a compared slab written, and says what came of it.
func (j *job) keep(v *verifier, s *slab) {
	good, bad, err := v.keep(s)
	for _, r := range good {
		_ = j.post(note{kind: noteSched, ev: sched.Event{Kind: sched.Verified, Run: r}})
	}
	for _, r := range bad {
		_ = j.post(note{kind: noteSched, info: peer.AddrInfo{ID: s.peer}, ev: sched.Event{Kind: sched.Corrupt, Peer: s.from, Run: r}})
	}
	if err != nil {
		_ = j.post(note{kind: noteFailed, err: err})
	}
	j.slabs.put(s)
}
