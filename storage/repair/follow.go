package repair

import (
	"bufio"
	"context"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"github.com/shoal-os/shoal/dht/roster"
	"github.com/shoal-os/shoal/dht/wire"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/directory/disk"
	"github.com/shoal-os/shoal/storage/placement"
	"github.com/shoal-os/shoal/storage/repair/inventory"
	"github.com/shoal-os/shoal/storage/repair/pb"
)

const (
	// followPause and followPauseMax bound the time between two tries to follow a member that is online.
	followPause    = time.Second
	followPauseMax = time.Minute

	// newsRate and newsBurst bound the changes, in pieces a second and at once, that are taken in from one member: more
	// than a disk syncs new pieces for long, less than would keep a processor busy (each costs about 10 µs).
	newsRate  = 5_000
	newsBurst = 1 << 18

	// takingsMax bounds the fetches that one member may announce at a time, takingTime for how long each is believed.
	takingsMax = 256
	takingTime = time.Hour

	// seenMax bounds the members that one message may tell of, and seenOld how long ago that may be.
	seenMax = inventory.MembersMax
	seenOld = 366 * 24 * time.Hour

	// bucketPart is how many pieces of one bucket a message names.
	bucketPart = 8192
)

// heard is what is known of a member's own words beside what it holds.
type heard struct {
	position
	known bool // position says something
	usage usage
}

// usage is how much a member holds and may hold, in bytes.
type usage struct {
	held, free uint64
	pieces     uint64
}

// after is what is known once a Delta was heard too.
func (h heard) after(d *pb.Delta) heard {
	if e := d.GetEpoch(); len(e) == len(h.epoch) {
		h.epoch, h.next, h.known = [16]byte(e), d.GetNext(), true
	}
	if u := d.GetUsage(); u != nil {
		h.usage = usage{u.GetHeld(), u.GetFree(), u.GetPieces()}
	}
	return h
}

// message is what is known, for the disk.
func (h heard) message() *pb.Delta {
	d := &pb.Delta{Usage: h.usage.message()}
	if h.known {
		d.Epoch, d.Next = h.epoch[:], h.next
	}
	return d
}

func (u usage) message() *pb.Usage { return &pb.Usage{Held: u.held, Free: u.free, Pieces: u.pieces} }

// keepFollowing has a goroutine follow each member that is online, and none else. mu is held.
func (r *Repair) keepFollowing(members []roster.Member) {
	online := map[peer.ID]bool{}
	for _, m := range members {
		if m.Self || m.State != roster.Online {
			continue
		}
		online[m.ID] = true
		if r.follows[m.ID] == nil && len(r.follows) < inventory.MembersMax && r.ctx.Err() == nil {
			ctx, cancel := context.WithCancel(r.ctx)
			r.follows[m.ID] = cancel
			r.wg.Go(func() { r.follow(ctx, m.ID) })
		}
	}
	for id, cancel := range r.follows {
		if !online[id] {
			cancel()
			delete(r.follows, id)
			r.talks.drop(id)
		}
	}
}

// follow hears what a member holds for as long as it is online.
func (r *Repair) follow(ctx context.Context, p peer.ID) {
	pause := followPause
	for ctx.Err() == nil {
		began := time.Now()
		err := r.followOnce(ctx, p)
		if ctx.Err() != nil {
			return
		}
		r.log.Debug("a member's inventory is not heard", "peer", p, "err", err)
		if time.Since(began) > followPauseMax {
			pause = followPause
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		pause = min(2*pause, followPauseMax)
	}
}

func (r *Repair) followOnce(ctx context.Context, p peer.ID) error {
	open, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	raw, err := r.cfg.Streams.NewStream(open, p, Protocol)
	if err != nil {
		return err
	}
	defer func() { _ = raw.Reset() }()
	stop := context.AfterFunc(ctx, func() { _ = raw.Reset() })
	defer stop()
	_ = raw.SetWriteDeadline(time.Now().Add(answerTime))
	if err := wire.WriteMsg(raw, &pb.Ask{Follow: r.question(p)}, askMax); err != nil {
		return err
	}
	in := bufio.NewReaderSize(countingReader{raw, &r.counted.news}, 16<<10)
	calm := newLimiter(newsRate, newsBurst)
	for {
		_ = raw.SetReadDeadline(time.Time{}) // it speaks when there is something to say; links notice when it is gone
		a, err := readAnswer(in)
		if err != nil {
			return err
		}
		d := a.GetDelta()
		if d == nil {
			return errAnswer("delta")
		}
		n, err := r.hear(p, d)
		if err != nil {
			return err
		}
		if err := calm.wait(ctx, 1+n); err != nil {
			return err
		}
	}
}

// question says what is known of a member already.
func (r *Repair) question(p peer.ID) *pb.Follow {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := &pb.Follow{}
	if h := r.told[p]; h.known {
		f.Epoch, f.After = h.epoch[:], h.next
	}
	if slot, ok := r.book.Slot(p); ok && r.book.Count(slot) > 0 {
		f.Sums = r.book.Sums(slot).Marshal()
	}
	return f
}

// news is a Delta that was looked at.
type news struct {
	buckets        map[int][]chunk.CID
	added, removed []chunk.CID
	takings        []placement.Taking
	seen           []placement.LastSeen
}

// parse checks a Delta.
func (r *Repair) parse(p peer.ID, d *pb.Delta) (n news, err error) {
	if n.added, err = inventory.Unpack(d.GetAdded(), answerMax/inventory.Packed); err != nil {
		return n, err
	}
	if n.removed, err = inventory.Unpack(d.GetRemoved(), answerMax/inventory.Packed); err != nil {
		return n, err
	}
	n.buckets = map[int][]chunk.CID{}
	for _, b := range d.GetBuckets() {
		if b.GetFirst() >= inventory.Buckets {
			return n, wire.Errorf(wire.Malformed, "a bucket %d", b.GetFirst())
		}
		ids, err := inventory.Unpack(b.GetPieces(), answerMax/inventory.Packed)
		if err != nil {
			return n, err
		}
		n.buckets[int(b.GetFirst())] = ids
	}
	if len(d.GetTakings()) > takingsMax || len(d.GetSeen()) > seenMax {
		return n, wire.Errorf(wire.TooLarge, "too many at once")
	}
	for _, t := range d.GetTakings() {
		id, err := inventory.UnpackOne(t.GetPiece())
		if err != nil {
			return n, err
		}
		left := min(time.Duration(t.GetSeconds())*time.Second, takingTime)
		n.takings = append(n.takings, placement.Taking{Peer: p, Piece: id, For: left})
	}
	now := r.cfg.Now()
	for _, s := range d.GetSeen() {
		if ago := s.GetSeconds(); ago < uint64(seenOld/time.Second) && len(s.GetPeer()) <= peerIDMax {
			n.seen = append(n.seen, placement.LastSeen{Peer: peer.ID(s.GetPeer()), At: now.Add(-time.Duration(ago) * time.Second)})
		}
	}
	return n, nil
}

// hear takes in what a member says, and returns how many pieces that was about.
func (r *Repair) hear(p peer.ID, d *pb.Delta) (int64, error) {
	n, err := r.parse(p, d)
	if err != nil {
		return 0, wire.Errorf(wire.Malformed, "%v", err)
	}
	work := int64(len(n.added) + len(n.removed))
	for _, ids := range n.buckets {
		work += int64(len(ids))
	}
	entries, err := r.apply(p, d, n)
	r.write(entries...)
	return work, err
}

// apply puts news into the book and the planner, and returns what to write down.
func (r *Repair) apply(p peer.ID, d *pb.Delta, n news) ([]disk.Entry, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	slot, err := r.book.Member(p)
	if err != nil {
		return nil, err
	}
	added, removed, err := r.applyPieces(slot, n)
	added, removed = net(added, removed)
	was := r.told[p]
	if err == nil {
		r.told[p] = was.after(d)
	}
	if len(added)+len(removed) > 0 {
		r.doubts.cleared(p, added)
		r.step(placement.Holds{Peer: p, Added: added, Removed: removed})
	}
	if r.told[p].usage.free != was.usage.free {
		r.step(placement.Room{Peer: p, Free: r.told[p].usage.free})
		r.owed.membersChanged()
	}
	for _, t := range n.takings {
		r.step(t)
	}
	if len(n.seen) > 0 {
		r.step(placement.Hearsay{Seen: n.seen})
	}
	at := &pb.Delta{}
	if err == nil && !proto.Equal(was.message(), r.told[p].message()) {
		at = r.told[p].message()
	}
	return heardEntries(p, added, removed, at), err
}

func (r *Repair) applyPieces(slot inventory.Slot, n news) (added, removed []chunk.CID, err error) {
	for bucket, ids := range n.buckets {
		plus, minus, err := r.book.Replace(slot, bucket, ids)
		added, removed = append(added, plus...), append(removed, minus...)
		if err != nil {
			return added, removed, err
		}
	}
	for _, c := range n.removed {
		if changed, _ := r.book.Set(slot, c, false); changed {
			removed = append(removed, c)
		}
	}
	for _, c := range n.added {
		changed, err := r.book.Set(slot, c, true)
		if err != nil {
			return added, removed, err
		}
		if changed {
			added = append(added, c)
		}
	}
	return added, removed, nil
}
