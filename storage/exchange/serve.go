package exchange

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/wire"
	"github.com/shoal-os/shoal/storage/block"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/chunk/bitfield"
)

const (
	helloWait  = 10 * time.Second // for the other side's first message
	writeWait  = 60 * time.Second // for one write to be taken
	queueRuns  = 8192             // runs one stream may have waiting
	treesMax   = 8                // trees one stream may have asked for
	sendBuffer = 1<<20 + leafHeader
	havePeriod = 25 * time.Millisecond // between two looks for new leaves of a partial
	peerPeriod = time.Second           // between two looks for new peers of the swarm
	peerSoon   = 50 * time.Millisecond // while the addresses of one who just came are not known yet …
	peerFresh  = 3 * time.Second       // … for so long
)

// sendBuffers holds the frames under way to streams.
var sendBuffers = sync.Pool{New: func() any { b := make([]byte, 0, sendBuffer); return &b }}

// upload is one stream that this peer serves.
type upload struct {
	swarm  *Swarm
	st     network.Stream
	peer   peer.ID
	root   *block.Root
	reader *block.Reader
	local  bool // on this machine or LAN: no rate limit
	// private: the root is served from Config.Private. member: the other side may
	// know of such, whether this one is or not.
	private, member bool

	told   *bitfield.Bitfield // what it knows that we have; nil once it knows that is all
	soon   *bitfield.Bitfield // what it knows that we have asked seeds for
	known  map[peer.ID]bool   // the peers it was told of, true if their addresses too
	nextPX time.Time
	grewAt time.Time // when the swarm was last said to have grown

	ctx    context.Context // ends with the upload
	cancel context.CancelFunc
	lane   *laneWriter // where the writer sends; nil: on the stream
	// fetching: the other side serves what it has of the root, too.
	fetching bool
	// openLanes: the other side takes up open ones, and so does this one.
	openLanes bool

	gaveAt atomic.Int64 // when a leaf was last sent, in Unix nanoseconds

	mu      sync.Mutex
	wake    chan struct{} // holds a token when there may be something to do
	queue   []bitfield.Run
	trees   int   // how often the tree is asked for
	grew    bool  // the swarm has new members
	choke   bool  // what the choker wants
	choked  bool  // what the other side was told
	ended   bool  // the other side asks for nothing more
	failure error // what it did wrong

	laneAsked bool
	laneOffer *Lane       // to be told
	laneReady *laneWriter // to go on on
	laneConn  net.Conn    // of the lane that was taken up
}

// serve runs one stream from Hello to its end.
func (s *Swarm) serve(st network.Stream) {
	u := &upload{swarm: s, st: st, peer: st.Conn().RemotePeer(), local: local(st.Conn()), wake: make(chan struct{}, 1)}
	u.ctx, u.cancel = context.WithCancel(s.ctx)
	stop := make(chan struct{})
	defer close(stop)
	s.tasks.Go(func() { // end with the swarm
		select {
		case <-s.ctx.Done():
			_ = wire.Reset(st, wire.Errorf(wire.Closing, "shutting down"))
			u.cutLane() // where the writer may wait for who reads nothing
		case <-stop:
		}
	})
	err := u.run()
	ended := err == nil || errors.Is(err, io.EOF)
	u.endLanes(!ended)
	if ended {
		_ = st.Close()
		return
	}
	s.log.Debug("upload ended", "peer", u.peer, "err", err)
	_ = wire.Reset(st, err)
}

func (u *upload) run() error {
	_ = u.st.SetDeadline(time.Now().Add(helloWait))
	br := bufio.NewReaderSize(u.st, 4<<10)
	err := u.greet(br)
	if u.reader != nil {
		defer u.reader.Close()
	}
	if err != nil {
		return err
	}
	_ = u.st.SetDeadline(time.Time{})
	if !u.swarm.up.add(u) {
		return wire.Errorf(wire.Busy, "too many streams")
	}
	defer u.swarm.up.remove(u)
	if u.fetching {
		u.introduce()
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		u.read(br)
	}()
	err = u.write()
	if err != nil {
		_ = wire.Reset(u.st, err) // ends read, too
	} else {
		_ = u.st.CloseRead()
	}
	<-read
	return err
}

// greet answers the Hello.
func (u *upload) greet(br *bufio.Reader) error {
	var hello Hello
	if err := wire.ReadMsg(br, &hello, helloMax); err != nil {
		return err
	}
	id, n, err := chunk.CIDFromBytes(hello.Root)
	if err != nil || n != len(hello.Root) {
		return u.refuse(wire.Malformed, "not a root this peer understands")
	}
	root, private, ok := u.swarm.find(id, u.peer)
	if !ok {
		return u.refuse(wire.NotFound, "not held here")
	}
	if root.Suspect() {
		return u.refuse(wire.Busy, "being read again after a crash")
	}
	if u.reader, err = root.NewReader(); err != nil {
		u.swarm.log.Warn("a root cannot be read", "root", id, "err", err)
		root.Problem("its record is damaged: share or get it again")
		return u.refuse(wire.Internal, "cannot be read here")
	}
	u.root, u.private, u.member = root, private, u.swarm.member(u.peer)
	u.fetching = hello.Fetching
	u.openLanes = hello.OpenLane && !u.swarm.cfg.SealAll
	have, whole := root.Have()
	w := &Welcome{Leaves: uint32(root.Leaves()), Whole: whole, Private: private, Lanes: u.offersLane()}
	if !whole {
		w.Have, u.told = have.Bytes(), have
	}
	return wire.WriteMsg(u.st, w, welcomeMax)
}

// refuse tells why there is no service, and ends the stream.
func (u *upload) refuse(kind wire.ErrKind, text string) error {
	err := wire.WriteMsg(u.st, &Welcome{Error: uint32(kind) + 1, Text: text}, welcomeMax)
	return errors.Join(io.EOF, err)
}

func (u *upload) signal() {
	select {
	case u.wake <- struct{}{}:
	default:
	}
}

// read takes requests in until the other side ends or breaks the protocol.
func (u *upload) read(br *bufio.Reader) {
	for {
		err := u.readOne(br)
		if err == nil {
			continue
		}
		u.mu.Lock()
		u.ended = true
		if !errors.Is(err, io.EOF) {
			u.failure = err
		}
		u.mu.Unlock()
		u.signal()
		return
	}
}

func (u *upload) readOne(br *bufio.Reader) error {
	t, n, err := readHeader(br, toServer)
	if err != nil {
		return err
	}
	if t == frameLaneAsk {
		return u.laneWanted()
	}
	if t == frameTree {
		u.mu.Lock()
		defer u.mu.Unlock()
		if u.trees++; u.trees > treesMax {
			return wire.Errorf(wire.TooLarge, "asks for more than %d trees at once", treesMax)
		}
		u.signal()
		return nil
	}
	runs, err := readRuns(br, n, u.root.Leaves())
	if err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case t == frameCancel:
		// Taking leaves out of the middle of a run makes two of it.
		if u.queue = cancelRuns(u.queue, runs); len(u.queue) > queueRuns {
			return wire.Errorf(wire.TooLarge, "more than %d runs waiting", queueRuns)
		}
	case u.choked:
		// Sent before it heard of the choke; it will ask again.
	case len(u.queue)+len(runs) > queueRuns:
		return wire.Errorf(wire.TooLarge, "more than %d runs waiting", queueRuns)
	default:
		u.queue = append(u.queue, runs...)
	}
	u.signal()
	return nil
}

// write sends what is due until the other side has ended and is answered.
func (u *upload) write() error {
	tick := time.NewTicker(havePeriod)
	defer tick.Stop()
	for {
		sent, done, err := u.writeOne()
		if err != nil {
			return err
		}
		if sent {
			continue
		}
		if done {
			return nil
		}
		select {
		case <-u.wake:
		case <-tick.C:
			if u.told == nil { // only peers can be news now
				tick.Reset(max(peerSoon, time.Until(u.nextPX)))
			}
		case <-u.swarm.ctx.Done():
			return wire.Errorf(wire.Closing, "shutting down")
		}
	}
}

// writeOne sends what is due now, up to a bufferful. It has a buffer only that
// long: of hundreds of streams few are busy.
func (u *upload) writeOne() (sent, done bool, err error) {
	bp := sendBuffers.Get().(*[]byte)
	defer sendBuffers.Put(bp)
	buf, passed, done, err := u.next((*bp)[:0])
	if err != nil || len(buf) == 0 {
		return passed, done, err
	}
	err = u.send(buf)
	*bp = buf[:0]
	return true, false, err
}

func (u *upload) send(buf []byte) error {
	if u.lane != nil {
		_ = u.lane.conn.SetWriteDeadline(time.Now().Add(writeWait))
		_, err := u.lane.Write(buf)
		return err
	}
	_ = u.st.SetWriteDeadline(time.Now().Add(writeWait))
	_, err := u.st.Write(buf)
	return err
}

// next fills buf with what should be sent now: news first, then the tree, then
// leaves as they were asked for. passed says that a leaf went to the lane already, done that nothing will follow.
func (u *upload) next(buf []byte) (out []byte, passed, done bool, err error) {
	if buf, err = u.appendLane(buf); err != nil {
		return nil, false, false, err
	}
	buf = u.appendNews(buf)
	u.mu.Lock()
	err, tree := u.failure, u.trees > 0
	u.trees = max(0, u.trees-1)
	if u.choke != u.choked {
		u.choked = u.choke
		if u.choked {
			u.queue = nil
			buf = appendHeader(buf, frameChoke, 0)
		} else {
			buf = appendHeader(buf, frameUnchoke, 0)
		}
	}
	done = u.ended && len(u.queue) == 0 && !tree && u.trees == 0
	u.mu.Unlock()
	if err != nil {
		return buf, false, false, err
	}
	if tree {
		if err := u.sendTree(buf); err != nil {
			return nil, false, false, err
		}
		return appendHeader(buf[:0], frameTreeEnd, 0), false, false, nil
	}
	if i, ok := u.pop(u.passes); ok {
		buf, err = u.passLeaf(buf, i)
		return buf, true, done, err
	}
	buf, err = u.appendLeaves(buf)
	return buf, false, done, err
}

func (u *upload) sendTree(buf []byte) error {
	err := u.root.Nodes(func(node []byte) error {
		buf = appendFrame(buf, frameNode, node)
		if len(buf) < sendBuffer/4 {
			return nil
		}
		err := u.send(buf)
		buf = buf[:0]
		return err
	})
	if err == nil && len(buf) > 0 {
		err = u.send(buf)
	}
	if errors.Is(err, block.ErrDamaged) {
		return wire.Errorf(wire.Internal, "cannot be read here")
	}
	return err
}

// appendLeaves appends leaves from the head of the queue until the buffer is full.
func (u *upload) appendLeaves(buf []byte) ([]byte, error) {
	start, sent := len(buf), 0
	for len(buf) < sendBuffer/2 {
		i, ok := u.pop(func(i int) bool { return !u.passes(i) })
		if !ok {
			break
		}
		at := len(buf)
		buf = append(buf, make([]byte, leafHeader)...)
		grown, err := u.reader.ReadLeaf(i, buf)
		if err != nil {
			buf = u.appendGone(buf[:at], i, err)
			continue
		}
		if !u.intact(i, grown[at+leafHeader:]) {
			buf = u.appendGone(buf[:at], i, block.ErrDamaged)
			continue
		}
		buf = grown
		n := len(buf) - at - leafHeader
		sent += n
		head := appendHeader(buf[at:at], frameLeaf, 4+n)
		_ = append(head, byte(i>>24), byte(i>>16), byte(i>>8), byte(i))
	}
	if sent == 0 {
		return buf, nil
	}
	if err := u.swarm.up.limit.wait(u.swarm.ctx, len(buf)-start, u.local); err != nil {
		return nil, wire.Errorf(wire.Closing, "shutting down")
	}
	u.gave(sent)
	return buf, nil
}

// pop takes the next leaf index off the queue, if it is one that is wanted now.
func (u *upload) pop(wanted func(i int) bool) (int, bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.queue) == 0 || !wanted(u.queue[0].First) {
		return 0, false
	}
	head := &u.queue[0]
	i := head.First
	head.First++
	if head.Count--; head.Count == 0 {
		u.queue = u.queue[1:]
	}
	return i, true
}

func (u *upload) appendGone(buf []byte, i int, err error) []byte {
	kind := wire.Internal
	switch {
	case errors.Is(err, block.ErrNotFound):
		kind = wire.NotFound
	case errors.Is(err, block.ErrChanged):
		kind = wire.Changed
	}
	u.swarm.log.Debug("leaf refused", "root", u.root.CID(), "leaf", i, "err", err)
	text := fmt.Sprintf("leaf %d: %s", i, kind)
	return appendMessage(buf, frameGone, &Gone{First: uint32(i), Count: 1, Error: uint32(kind), Text: text})
}

// appendNews appends what the other side should learn: leaves that have
// arrived here, and peers that have joined.
func (u *upload) appendNews(buf []byte) []byte {
	if u.told != nil && u.root.HaveCount() != u.told.Count() {
		buf = appendRuns(buf, frameHave, u.root.HaveSince(u.told, runsMax))
	}
	if u.told != nil && u.told.All() {
		u.told = nil
	}
	if j := u.swarm.job(circle{u.root.CID(), u.private}); j != nil && u.told != nil {
		if u.soon == nil {
			u.soon = bitfield.New(u.root.Leaves())
		}
		buf = appendRuns(buf, frameSoon, j.expectedSince(u.soon))
	}
	u.mu.Lock()
	grew := u.grew
	u.grew = false
	u.mu.Unlock()
	now := time.Now()
	if grew {
		u.grewAt = now
	}
	if grew || now.After(u.nextPX) {
		var unknown bool
		buf, unknown = u.appendPeers(buf)
		u.nextPX = now.Add(peerPeriod)
		if unknown && now.Sub(u.grewAt) < peerFresh {
			u.nextPX = now.Add(peerSoon)
		}
	}
	return buf
}

// appendPeers appends those of the swarm that the other side was not told of.
// One whose addresses have not been learnt yet, as unknown says there are, is
// named without them, and again when they are: fellows share out what each of
// them asks a seed for, by name, and should do so from the first leaf on.
func (u *upload) appendPeers(buf []byte) (out []byte, unknown bool) {
	var m Peers
	for _, p := range u.members() {
		_, named := u.known[p]
		if p == u.peer || u.known[p] || len(m.Peers) == peersMax || !named && len(u.known) >= namedMax/2 {
			continue
		}
		addrs := u.swarm.cfg.Host.Peerstore().Addrs(p)
		unknown = unknown || len(addrs) == 0
		if named && len(addrs) == 0 {
			continue
		}
		if u.known == nil {
			u.known = map[peer.ID]bool{}
		}
		u.known[p] = len(addrs) > 0
		x := &Peers_Peer{Id: []byte(p)}
		for _, a := range addrs[:min(len(addrs), addrsMax)] {
			x.Addrs = append(x.Addrs, a.Bytes())
		}
		m.Peers = append(m.Peers, x)
	}
	if len(m.Peers) == 0 {
		return buf, unknown
	}
	return appendMessage(buf, framePeers, &m), unknown
}
