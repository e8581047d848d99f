package quorum

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/wire"
	"github.com/shoal-os/shoal/storage/quorum/pb"
	"github.com/shoal-os/shoal/storage/quorum/replica"
	"github.com/shoal-os/shoal/storage/quorum/wal"
)

const (
	// offerWait bounds how long others have to accept an offer.
	offerWait = 3 * time.Second
	// transferWait is how long another voter has to take the lead.
	transferWait = time.Second
	// retryEvery is how often the leader is looked for and asked again, and catchUpEvery how often a learner is looked at.
	retryEvery   = 100 * time.Millisecond
	catchUpEvery = 20 * time.Millisecond
)

// Create makes a group with these voters, this peer among them. Those that cannot be reached at once are left out; with less than
// a majority of them it is ErrNoQuorum and there is no group. When it returns the group has a leader, mostly this peer. When ctx
// ends between, the group is returned with ErrMaybe: it is there and may get a leader later.
//
// Whoever takes an offer votes for the founder by it, so that all that goes before the first command is one round to the others
// and one wait for their disks.
func (e *Engine) Create(ctx context.Context, id GroupID, kind string, voters []peer.ID) (*Group, error) {
	g, _, err := e.found(ctx, id, kind, voters)
	return g, err
}

// Found is Create and the first Propose in one, which costs no more than Create alone. An error of the proposal comes with the group.
func (e *Engine) Found(ctx context.Context, id GroupID, kind string, voters []peer.ID, first []byte) (*Group, []byte, error) {
	if len(first) > CommandMax {
		return nil, nil, fmt.Errorf("quorum: propose %d bytes: %w", len(first), ErrTooLarge)
	}
	g, outcomes, err := e.found(ctx, id, kind, voters, replica.Propose{ID: e.request(), Data: first})
	if err != nil {
		return g, nil, err
	}
	return g, outcomes[0].result, nil
}

// found makes a group and gives it its first requests.
func (e *Engine) found(ctx context.Context, id GroupID, kind string, voters []peer.ID, first ...replica.Event) (*Group, []outcome, error) {
	if err := e.reserve(id, kind); err != nil {
		return nil, nil, fmt.Errorf("quorum: create: %w", err)
	}
	defer e.unreserve(id)
	voters = slices.Compact(slices.Sorted(slices.Values(voters)))
	if !slices.Contains(voters, e.cfg.Self) || len(voters) > VotersMax || id == (GroupID{}) {
		return nil, nil, fmt.Errorf("quorum: create: %d voters, of which this peer must be one", len(voters))
	}
	self := replica.Member{ID: randomNumber(), Peer: e.cfg.Self}
	others := make([]replica.Member, 0, len(voters))
	for _, v := range voters {
		if v != e.cfg.Self {
			others = append(others, replica.Member{ID: randomNumber(), Peer: v})
		}
	}
	members := append([]replica.Member{self}, others...)
	st := replica.Founded(kind, self.ID, self.ID, members)
	saved := make(chan error, 1)
	go func() { saved <- e.persist(ctx, id, st) }()
	took, votes, err := e.offerAll(ctx, id, kind, members)
	if saveErr := <-saved; err == nil {
		err = saveErr
	}
	if err != nil {
		// Its state may be durable, or be later. A founder of whom nobody heard harms nobody, and neither does a number that nobody uses.
		_ = e.wal.Append([]wal.Record{{Group: id, Kind: wal.Gone}}, false, nil)
		return nil, nil, fmt.Errorf("quorum: create: %w", err)
	}
	st.Stand()
	g, err := e.start(id, st)
	if err != nil {
		return nil, nil, fmt.Errorf("quorum: create: %w", err)
	}
	outcomes, err := g.askAfter(ctx, replica.Campaign{Votes: votes}, first...)
	if err != nil {
		return g, nil, fmt.Errorf("quorum: propose: %w", err)
	}
	if err := g.until(ctx, func(st Status) bool { return st.Leader != "" }); err != nil {
		return g, nil, fmt.Errorf("quorum: create: %w", errors.Join(ErrMaybe, err))
	}
	for _, m := range others {
		if slices.Contains(took, m.ID) {
			continue
		}
		if err := g.Remove(ctx, m.Peer); err != nil {
			return g, nil, fmt.Errorf("quorum: create: leave out %v: %w", m.Peer, errors.Join(ErrMaybe, err))
		}
	}
	return g, outcomes, nil
}

// reserve keeps an id for a group that is about to be.
func (e *Engine) reserve(id GroupID, kind string) error {
	if e.ended.has(id) {
		return ErrExists
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.kinds[kind] == nil:
		return ErrKind
	case e.groups[id] != nil || e.dormant[id] != nil || e.reserved[id]:
		return ErrExists
	case len(e.groups)+len(e.dormant)+len(e.reserved) >= GroupsMax:
		return ErrBusy
	}
	e.reserved[id] = true
	return nil
}

func (e *Engine) unreserve(id GroupID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.reserved, id)
}

// persist makes a new replica's state durable.
func (e *Engine) persist(ctx context.Context, id GroupID, st *replica.State) error {
	done := make(chan struct{})
	if err := e.wal.Append([]wal.Record{{Group: id, Kind: wal.Whole, Data: st.Record()}}, true, func() { close(done) }); err != nil {
		return ErrClosed
	}
	select {
	case <-done:
		return nil
	case <-e.ctx.Done():
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err() // it may be durable later
	}
}

// offerAll offers membership to all but the first of those that a group is to be founded with, which is this peer, and returns
// the numbers of those who took it, and of those among them who have voted by that: an older peer that knows of no founders has not.
func (e *Engine) offerAll(ctx context.Context, id GroupID, kind string, members []replica.Member) (took, votes []uint64, err error) {
	o := &pb.Offer{Kind: kind, Founder: members[0].ID}
	for _, m := range members {
		o.Founding = append(o.Founding, &pb.Founding{Replica: m.ID, Peer: []byte(m.Peer)})
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	var refused []error
	for _, m := range members[1:] {
		wg.Go(func() {
			mine := &pb.Offer{Kind: kind, Replica: m.ID, Founder: o.Founder, Founding: o.Founding}
			founded, err := e.offer(ctx, id, m.Peer, mine)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				refused = append(refused, fmt.Errorf("%v: %w", m.Peer, err))
				return
			}
			took = append(took, m.ID)
			if founded {
				votes = append(votes, m.ID)
			}
		})
	}
	wg.Wait()
	if 1+len(took) <= len(members)/2 {
		return nil, nil, errors.Join(append(refused, ErrNoQuorum)...)
	}
	return took, votes, nil
}

// offer offers a peer a place, under a number that was never used: if the answer is lost, so is the number. A replica
// of which nobody can say that it has forgotten something therefore never counts.
// founded says whether the replica was made as one of those that the group is founded with.
func (e *Engine) offer(ctx context.Context, id GroupID, to peer.ID, o *pb.Offer) (founded bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, offerWait)
	defer cancel()
	a, err := e.call(ctx, to, &pb.Call{Group: id[:], Offer: o})
	return a.GetFounded(), err
}

// accept takes an offer: from then on this peer has a replica that knows nothing yet, or one that the group was founded with.
func (e *Engine) accept(from peer.ID, id GroupID, o *pb.Offer) error {
	if o.GetReplica() == 0 || id == (GroupID{}) {
		return wire.Errorf(wire.Malformed, "an offer without a number")
	}
	if e.cfg.Accept != nil {
		if err := e.cfg.Accept(from, id, o.GetKind()); err != nil {
			return err
		}
	}
	if err := e.reserve(id, o.GetKind()); err != nil {
		return err
	}
	defer e.unreserve(id)
	st := replica.Offered(o.GetKind(), o.GetReplica())
	if o.GetFounder() != 0 {
		members, err := e.founding(from, o)
		if err != nil {
			return err
		}
		st = replica.Founded(o.GetKind(), o.GetReplica(), o.GetFounder(), members)
	}
	if err := e.persist(e.ctx, id, st); err != nil {
		return err
	}
	_, err := e.start(id, st)
	return err
}

// founding reads with whom a group is founded: this peer and the one that founds it are among them.
func (e *Engine) founding(from peer.ID, o *pb.Offer) ([]replica.Member, error) {
	bad := wire.Errorf(wire.Malformed, "an offer with founders that cannot be")
	if len(o.GetFounding()) > VotersMax {
		return nil, bad
	}
	var members []replica.Member
	whose := map[uint64]peer.ID{}
	for _, f := range o.GetFounding() {
		id, err := peerOf(f.GetPeer())
		if err != nil {
			return nil, err
		}
		if _, twice := whose[f.GetReplica()]; twice || f.GetReplica() == 0 || slices.ContainsFunc(members, func(m replica.Member) bool { return m.Peer == id }) {
			return nil, bad
		}
		whose[f.GetReplica()] = id
		members = append(members, replica.Member{ID: f.GetReplica(), Peer: id})
	}
	if whose[o.GetReplica()] != e.cfg.Self || whose[o.GetFounder()] != from || from == e.cfg.Self {
		return nil, bad
	}
	return members, nil
}

// atLeader has something done by the leader, here or elsewhere, and looks for it again until ctx ends.
func (g *Group) atLeader(ctx context.Context, here func() error, call *pb.Call) error {
	call.Group = g.id[:]
	for {
		err := error(ErrNoQuorum)
		leader, _, ok := g.Leader()
		switch {
		case g.Status().Dissolved || g.e.ctx.Err() != nil:
			return g.ending()
		case ok && leader == g.e.cfg.Self:
			err = here()
		case ok:
			_, err = g.e.call(ctx, leader, call)
		}
		if err == nil || errors.Is(err, ErrDissolved) || errors.Is(err, ErrKind) || wire.KindOf(err) == wire.Refused {
			return err
		}
		timer := time.NewTimer(retryEvery)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return errors.Join(err, ctx.Err())
		}
	}
}

// Add makes a peer a voter: it gets the state as a learner first, and its vote once it is in step. It returns when it has it. When
// ctx ends before, the peer may stay a learner; calling Add again goes on from there. Adding a voter does nothing.
func (g *Group) Add(ctx context.Context, id peer.ID) error {
	err := g.atLeader(ctx, func() error { return g.addHere(ctx, id) }, &pb.Call{Add: []byte(id)})
	if err != nil {
		return fmt.Errorf("quorum: add %v: %w", id, err)
	}
	return nil
}

// addHere is Add on the leader.
func (g *Group) addHere(ctx context.Context, id peer.ID) error {
	m, known := g.member(id)
	switch {
	case known && !m.Learner:
		return nil
	case !known:
		m = replica.Member{ID: randomNumber(), Peer: id}
		if _, err := g.e.offer(ctx, g.id, id, &pb.Offer{Kind: g.kind, Replica: m.ID}); err != nil {
			return err
		}
		if err := g.alter(ctx, replica.AddLearner, m); err != nil {
			return err
		}
	}
	if err := g.catchUp(ctx, m.ID); err != nil {
		return err
	}
	return g.alter(ctx, replica.Promote, m)
}

// member returns a peer as the replica has it in its book.
func (g *Group) member(id peer.ID) (replica.Member, bool) {
	g.stepMu.Lock()
	defer g.stepMu.Unlock()
	return g.rep.Status().Book.Of(id)
}

// alter has one change agreed on.
func (g *Group) alter(ctx context.Context, op replica.Op, m replica.Member) error {
	for {
		_, err := g.ask(ctx, replica.Change{ID: g.e.request(), Op: op, Member: m})
		if !errors.Is(err, ErrBusy) {
			return err
		}
		timer := time.NewTimer(catchUpEvery)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return errors.Join(err, ctx.Err())
		}
	}
}

// catchUp waits until a learner has all that there was when it was called.
func (g *Group) catchUp(ctx context.Context, id uint64) error {
	goal := g.Status().Index
	ticker := time.NewTicker(catchUpEvery)
	defer ticker.Stop()
	for {
		var at replica.Progress
		g.stepMu.Lock()
		leading := g.rep.Status().Leading
		g.rep.Progress(func(of uint64, p replica.Progress) {
			if of == id {
				at = p
			}
		})
		g.stepMu.Unlock()
		switch {
		case !leading:
			return errNotLeader
		case at.Lost:
			return errUnknown
		case at.Match >= goal:
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Remove takes a peer out of the group. One that is not in it is no error.
func (g *Group) Remove(ctx context.Context, id peer.ID) error {
	err := g.atLeader(ctx, func() error { return g.removeHere(ctx, id) }, &pb.Call{Remove: []byte(id)})
	if err != nil && !(id == g.e.cfg.Self && errors.Is(err, ErrNotVoter)) {
		return fmt.Errorf("quorum: remove %v: %w", id, err)
	}
	return nil
}

// removeHere is Remove on the leader. A leader that is to go hands over first, so that the group is not without one.
func (g *Group) removeHere(ctx context.Context, id peer.ID) error {
	m, known := g.member(id)
	if !known {
		return nil
	}
	st := g.Status()
	voters := 0
	var heir peer.ID
	for _, o := range st.Members {
		if o.Learner {
			continue
		}
		if voters++; !o.Self && o.Present && !o.Lost {
			heir = o.Peer
		}
	}
	switch {
	case !m.Learner && voters == 1:
		return wire.Errorf(wire.Refused, "the last voter cannot leave; dissolve the group")
	case id == g.e.cfg.Self && heir == "":
		return ErrBusy // there is nobody to hand over to now
	case id == g.e.cfg.Self:
		g.transfer(heir)
		return errNotLeader
	}
	return g.alter(ctx, replica.Remove, m)
}

// Transfer makes another voter the leader, and returns when it is.
func (g *Group) Transfer(ctx context.Context, to peer.ID) error {
	here := func() error { return g.transferHere(to) }
	for {
		if err := g.atLeader(ctx, here, &pb.Call{Transfer: []byte(to)}); err != nil {
			return fmt.Errorf("quorum: transfer to %v: %w", to, err)
		}
		// One that has just got its vote may not know it yet; then it is asked again.
		try, cancel := context.WithTimeout(ctx, transferWait)
		err := g.until(try, func(st Status) bool { return st.Leader == to || st.Dissolved })
		cancel()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("quorum: transfer to %v: %w", to, errors.Join(ErrMaybe, err))
		}
	}
}

func (g *Group) transferHere(to peer.ID) error {
	m, known := g.member(to)
	switch {
	case !known || m.Learner:
		return wire.Errorf(wire.Refused, "it is no voter")
	case to == g.e.cfg.Self:
		return nil
	case !g.Status().Leading:
		return errNotLeader
	}
	g.transfer(to)
	return nil
}

// transfer lets another voter lead, if this replica does.
func (g *Group) transfer(to peer.ID) {
	if m, ok := g.member(to); ok && to != g.e.cfg.Self {
		g.post(replica.Transfer{To: m.ID})
	}
}
