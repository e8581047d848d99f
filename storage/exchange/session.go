package exchange

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/shoal-os/shoal/dht/wire"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/chunk/bitfield"
	"github.com/shoal-os/shoal/storage/exchange/sched"
)

const (
	readBuffer   = 64 << 10
	nodesAhead   = 4            // nodes of one peer that wait for the job, of up to 2 MiB each
	claimsMax    = 4            // times that a peer may speak of each leaf …
	claimsFree   = 4096         // … and this often besides
	namedMax     = 8 * peersMax // peers that one may tell of, once and again with their addresses
	movingEvery  = time.Second  // a leaf that takes longer than this shows that it moves
	pendingBound = 4 << 20      // bytes of requests waiting to be written
)

// session is one stream on which this peer asks another for leaves.
type session struct {
	job   *job
	id    sched.Peer
	peer  peer.ID
	st    network.Stream
	br    *bufio.Reader
	local bool

	leaves  int
	private bool               // it serves the root to members only
	have    *bitfield.Bitfield // nil: everything
	useful  time.Time          // when it last sent bytes, or was opened

	mu      sync.Mutex
	pending []byte // frames to write
	wake    chan struct{}
	ended   chan struct{} // closed by close, once
	closing sync.Once

	lanes     bool        // it offers one
	laneAsked atomic.Bool // and was asked for it, and has not answered
	onLane    bool        // what it sends comes on the lane; of the reading goroutine
	lane      io.Reader   // guarded by mu
	laneConn  net.Conn    // guarded by mu

	trees atomic.Int32  // how often it was asked for the tree and has not ended it
	nodes chan struct{} // holds a token for each of its nodes that run has not seen
	// Of the job's goroutine.
	stale   int32 // of trees, how many are not listened to
	ignored bool  // part of the tree that it sends now was not listened to

	// Of the reading goroutine.
	slab    *slab
	unsaid  int       // bytes that came and were not reported
	saidAt  time.Time // when bytes were last reported
	treeGot int
	claimed int // leaves that it said it has, will have, or has not, since the Welcome
	named   int // peers that it told of
}

// open connects to p, says Hello and reads the Welcome. With tree, it asks for
// the tree in the same breath.
func (j *job) open(ctx context.Context, id sched.Peer, info peer.AddrInfo, tree bool) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	h := j.swarm.cfg.Host
	if len(info.Addrs) > 0 || h.Network().Connectedness(info.ID) != network.Connected {
		if err := h.Connect(ctx, info); err != nil {
			return nil, fmt.Errorf("exchange: connect: %w", err)
		}
	}
	st, err := h.NewBulkStream(ctx, info.ID, Protocol)
	if err != nil {
		return nil, fmt.Errorf("exchange: open stream: %w", err)
	}
	s := &session{
		job: j, id: id, peer: info.ID, st: st, br: bufio.NewReaderSize(st, readBuffer),
		local: local(st.Conn()), wake: make(chan struct{}, 1), saidAt: time.Now(),
		ended: make(chan struct{}), nodes: make(chan struct{}, nodesAhead),
	}
	deadline, _ := ctx.Deadline()
	_ = st.SetDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { _ = st.Reset() }) // the job's end must not wait for an answer
	err = s.greet(tree)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = st.Reset()
		return nil, err
	}
	_ = st.SetDeadline(time.Time{})
	return s, nil
}

func (s *session) greet(tree bool) error {
	hello := &Hello{Root: s.job.spec.Root.Bytes(), Fetching: true, OpenLane: s.takesOpen()}
	if err := wire.WriteMsg(s.st, hello, helloMax); err != nil {
		return fmt.Errorf("exchange: hello: %w", err)
	}
	if tree {
		s.trees.Add(1)
		if _, err := s.st.Write(appendHeader(nil, frameTree, 0)); err != nil {
			return fmt.Errorf("exchange: hello: %w", err)
		}
	}
	var w Welcome
	if err := wire.ReadMsg(s.br, &w, welcomeMax); err != nil {
		return fmt.Errorf("exchange: welcome: %w", err)
	}
	if w.Error != 0 {
		return &wire.Error{Kind: wire.ErrKind(w.Error - 1), Text: wire.CleanText(w.Text)}
	}
	s.leaves, s.private, s.lanes = int(w.Leaves), w.Private, w.Lanes
	if w.Whole {
		return nil
	}
	have, err := bitfield.Parse(w.Have, s.leaves)
	if err != nil {
		return wire.Errorf(wire.Malformed, "bitfield: %v", err)
	}
	s.have = have
	return nil
}

// start runs the session's two goroutines.
func (s *session) start() {
	s.job.tasks.Go(func() {
		err := s.read()
		if s.slab != nil {
			s.job.slabs.put(s.slab)
			s.slab = nil
		}
		s.job.post(note{kind: noteClosed, sess: s, err: err})
	})
	s.job.tasks.Go(s.write)
	s.job.tasks.Go(func() { // end with the job, whatever the two are waiting for
		select {
		case <-s.job.ctx.Done():
			s.close(false)
		case <-s.ended:
		}
	})
}

// close ends both goroutines.
func (s *session) close(ban bool) {
	s.closing.Do(func() {
		close(s.ended)
		s.closeLane()
		if ban {
			_ = wire.Reset(s.st, wire.Errorf(wire.Refused, "sent wrong bytes"))
			return
		}
		// Not Close: a write that a peer does not take would hold that up.
		_ = s.st.Reset()
	})
}

// queue has frames written, without blocking the caller.
func (s *session) queue(frames []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.pending)+len(frames) > pendingBound {
		_ = s.st.Reset() // it takes no requests: its reader will report the end
		return
	}
	s.pending = append(s.pending, frames...)
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *session) write() {
	for {
		select {
		case <-s.wake:
		case <-s.ended:
			return
		}
		s.mu.Lock()
		buf := s.pending
		s.pending = nil
		s.mu.Unlock()
		_ = s.st.SetWriteDeadline(time.Now().Add(writeWait))
		if _, err := s.st.Write(buf); err != nil {
			_ = s.st.Reset()
			return
		}
	}
}

// read takes frames in until the stream ends.
func (s *session) read() error {
	for {
		// A slab is handed on when nothing more is waiting to be read, so that
		// small leaves travel in company and none waits for the next.
		if s.slab != nil && s.br.Buffered() < leafHeader {
			if err := s.flush(); err != nil {
				return err
			}
		}
		t, n, err := readHeader(s.br, toAsker)
		if err != nil {
			return err
		}
		if t == frameLeaf {
			err = s.readLeaf(n)
		} else {
			err = s.readControl(t, n)
		}
		if err != nil {
			return err
		}
	}
}

func (s *session) readControl(t frameType, n int) error {
	switch t {
	case frameNode:
		return s.readNode(n)
	case frameTreeEnd:
		return s.job.post(note{kind: noteTreeEnd, sess: s})
	case frameHave, frameSoon:
		runs, err := readRuns(s.br, n, s.leaves)
		if err == nil {
			err = s.claims(runs...)
		}
		if err != nil {
			return err
		}
		kind := sched.Has
		if t == frameSoon {
			kind = sched.Soon
		}
		for _, r := range runs {
			if err := s.say(sched.Event{Kind: kind, Run: r}); err != nil {
				return err
			}
		}
	case frameGone:
		var g Gone
		if err := readMessage(s.br, n, &g); err != nil {
			return err
		}
		run, err := checkRun(g.First, g.Count, s.leaves)
		if err == nil {
			err = s.claims(run)
		}
		if err != nil {
			return err
		}
		return s.job.post(note{
			kind: noteSched, sess: s, ev: sched.Event{Kind: sched.Refused, Peer: s.id, Run: run},
			err: &wire.Error{Kind: wire.ErrKind(g.Error), Text: wire.CleanText(g.Text)},
		})
	case frameChoke:
		return s.say(sched.Event{Kind: sched.Choked})
	case frameUnchoke:
		return s.say(sched.Event{Kind: sched.Unchoked})
	case framePeers:
		return s.readPeers(n)
	case frameLane:
		return s.readLane(n)
	case frameSwitch:
		return s.switchLane()
	}
	return nil
}

// claims bounds what a peer may say about leaves: each costs this side work for
// every leaf it names, in a few bytes. An honest peer says of a leaf once that
// it has come, and rarely more than once that it is gone.
func (s *session) claims(runs ...bitfield.Run) error {
	for _, r := range runs {
		s.claimed += r.Count
	}
	if s.claimed > claimsMax*s.leaves+claimsFree {
		return wire.Errorf(wire.Malformed, "says the same of its leaves again and again")
	}
	return nil
}

func (s *session) say(ev sched.Event) error {
	ev.Peer = s.id
	return s.job.post(note{kind: noteSched, sess: s, ev: ev})
}

func (s *session) readNode(n int) error {
	if s.trees.Load() == 0 {
		return wire.Errorf(wire.Malformed, "sent a tree that nobody asked it for")
	}
	select {
	case s.nodes <- struct{}{}:
	case <-s.ended:
		return context.Canceled
	}
	data := make([]byte, n)
	if _, err := io.ReadFull(s.br, data); err != nil {
		return io.ErrUnexpectedEOF
	}
	if s.treeGot += n; s.treeGot > treeMax {
		return wire.Errorf(wire.TooLarge, "tree of more than %d bytes", treeMax)
	}
	return s.job.post(note{kind: noteNode, sess: s, node: data})
}

func (s *session) readPeers(n int) error {
	var m Peers
	if err := readMessage(s.br, n, &m); err != nil {
		return err
	}
	for _, p := range m.Peers[:min(len(m.Peers), peersMax)] {
		if s.named++; s.named > namedMax {
			return nil
		}
		id, err := peer.IDFromBytes(p.Id)
		if err != nil {
			return wire.Errorf(wire.Malformed, "peer id: %v", err)
		}
		info := peer.AddrInfo{ID: id}
		for _, b := range p.Addrs[:min(len(p.Addrs), addrsMax)] {
			if a, err := multiaddr.NewMultiaddrBytes(b); err == nil {
				info.Addrs = append(info.Addrs, a)
			}
		}
		if err := s.job.post(note{kind: noteFound, info: info, via: viaExchange}); err != nil {
			return err
		}
	}
	return nil
}

// readLeaf reads one leaf into the slab at hand.
func (s *session) readLeaf(n int) error {
	if n < 4 {
		return wire.Errorf(wire.Malformed, "leaf frame of %d bytes", n)
	}
	var idx [4]byte
	if _, err := io.ReadFull(s.br, idx[:]); err != nil {
		return io.ErrUnexpectedEOF
	}
	leaf := int(idx[0])<<24 | int(idx[1])<<16 | int(idx[2])<<8 | int(idx[3])
	if leaf >= s.leaves || leaf >= s.job.ready() {
		return wire.Errorf(wire.Malformed, "leaf %d was not asked for", leaf)
	}
	n -= 4
	if s.slab != nil && (len(s.slab.buf)+n > slabSize || len(s.slab.items) == slabItems) {
		if err := s.flush(); err != nil {
			return err
		}
	}
	if s.slab == nil {
		b := s.job.slabs.take()
		b.from, b.peer = s.id, s.peer
		s.slab = b
	}
	if err := s.fillSlab(n); err != nil {
		return err
	}
	s.slab.items = append(s.slab.items, item{leaf: leaf, end: len(s.slab.buf)})
	return nil
}

// fillSlab reads n bytes onto the slab's end, showing on the way that they move.
func (s *session) fillSlab(n int) error {
	b := s.slab
	at := len(b.buf)
	if cap(b.buf)-at < n {
		b.buf = append(b.buf, make([]byte, n)...)
	} else {
		b.buf = b.buf[:at+n]
	}
	for rest := b.buf[at:]; len(rest) > 0; {
		k, err := s.br.Read(rest)
		rest = rest[k:]
		s.unsaid += k
		if err != nil {
			return io.ErrUnexpectedEOF
		}
		if err := s.job.pace(k, s.local); err != nil {
			return err
		}
		if len(rest) > 0 && time.Since(s.saidAt) > movingEvery {
			if err := s.say(sched.Event{Kind: sched.Moving, Bytes: s.take()}); err != nil {
				return err
			}
		}
	}
	return nil
}

// pace waits until n bytes that came may have come.
func (j *job) pace(n int, local bool) error {
	if err := j.swarm.down.wait(j.ctx, n, local); err != nil {
		return err
	}
	return j.swarm.repair.wait(j.ctx, n, !j.spec.Repair)
}

// take returns the bytes not yet reported, and counts them as reported.
func (s *session) take() int {
	n := s.unsaid
	s.unsaid, s.saidAt = 0, time.Now()
	return n
}

// flush reports the slab's leaves as arrived and hands them to the verifiers.
func (s *session) flush() error {
	b := s.slab
	s.slab = nil
	for _, r := range b.runs() {
		if err := s.say(sched.Event{Kind: sched.Arrived, Run: r, Bytes: s.take()}); err != nil {
			s.job.slabs.put(b)
			return err
		}
	}
	select {
	case s.job.work <- b:
		return nil
	case <-s.job.ctx.Done():
		s.job.slabs.put(b)
		return s.job.ctx.Err()
	}
}

// treeMax bounds the bytes of non-leaf blocks that one session may send: the
// walker takes no more of one tree, and a session may be asked for it again.
const treeMax = 4 * chunk.NodeBytesMax

// runFrame encodes a request or cancellation of one run.
func runFrame(t frameType, r bitfield.Run) []byte {
	return appendRuns(nil, t, []bitfield.Run{r})
}
