package exchange

import (
	"cmp"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/shoal-os/shoal/dht"
	"github.com/shoal-os/shoal/dht/wire"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/exchange/sched"
)

const (
	sessionsMax   = 40               // streams of one download
	candidatesMax = 500              // peers one download remembers
	exchangedMax  = 400              // the last places are not for those that other peers name, who may be inventions
	uselessAfter  = 20 * time.Second // then a session gives way to a peer that waits
	dialsMax      = 8                // at a time
	searchFirst   = 2 * time.Second
	searchLast    = 30 * time.Second
	retryFirst    = 200 * time.Millisecond
	retryFellow   = 25 * time.Millisecond // one who fetches the root too and has nothing of it yet
	retryLast     = 30 * time.Second
	triedShown    = 8 // peers named in an error
)

// Who named a candidate.
const (
	viaExchange = "exchange"        // another peer did
	viaAsks     = "asks for it too" // it asks us for the root
	viaLink     = "link"            // whoever began the download did
)

// candidate is a peer that may have the root.
type candidate struct {
	info   peer.AddrInfo
	via    string // who named it
	sess   *session
	dials  bool
	tries  int
	next   time.Time // when it may be tried again
	last   error
	banned string
	laned  bool // it was asked for a lane; not again, whatever became of that
}

// NoProviderError reports that nobody sent anything for too long.
type NoProviderError struct {
	Root   chunk.CID
	Waited time.Duration
	Tried  []Tried
	Web    []WebSource
	Reason error // the last reason a peer gave for refusing a leaf; may be nil
}

// Tried is one peer that was no help.
type Tried struct {
	Peer  peer.ID
	Addrs []multiaddr.Multiaddr
	Via   string
	Err   error
}

// Error lists what was tried.
func (e *NoProviderError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "exchange: nobody sent %s for %s", e.Root, e.Waited.Round(time.Second))
	if e.Reason != nil {
		fmt.Fprintf(&b, " (%v)", e.Reason)
	}
	if len(e.Tried) == 0 {
		b.WriteString("; no peer that has it was found")
	}
	for i, t := range e.Tried[:min(len(e.Tried), triedShown)] {
		sep := "; "
		if i == 0 {
			sep = "; tried "
		}
		fmt.Fprintf(&b, "%s%s (%s): %v", sep, short(t.Peer), t.Via, t.Err)
	}
	if n := len(e.Tried) - triedShown; n > 0 {
		fmt.Fprintf(&b, "; and %d more", n)
	}
	for _, w := range e.Web {
		if w.Why != "" {
			fmt.Fprintf(&b, "; web seed %s: %s", w.URL, w.Why)
		}
	}
	return b.String()
}

// short is the end of a peer id, which is what tells two apart.
func short(p peer.ID) string {
	s := p.String()
	return "…" + s[max(0, len(s)-8):]
}

func (j *job) noProvider(waited time.Duration) error {
	e := &NoProviderError{Root: j.spec.Root, Waited: waited, Reason: j.refusal, Web: j.webSources()}
	for _, c := range j.cands {
		err := c.last
		switch {
		case c.banned != "":
			err = errors.New(c.banned)
		case err == nil && c.sess != nil:
			err = errors.New("connected, but sent nothing")
		case err == nil:
			err = errors.New("no answer yet")
		}
		e.Tried = append(e.Tried, Tried{Peer: c.info.ID, Addrs: c.info.Addrs, Via: c.via, Err: err})
	}
	slices.SortFunc(e.Tried, func(a, b Tried) int { return strings.Compare(string(a.Peer), string(b.Peer)) })
	return e
}

// search asks the finder again and again, until the job ends.
func (j *job) search() {
	for wait := searchFirst; j.ctx.Err() == nil; wait = min(2*wait, searchLast) {
		for info, err := range j.swarm.cfg.Finder.FindProviders(j.ctx, dht.Key(j.spec.Root.Sum)) {
			if err != nil {
				j.swarm.log.Debug("look-up ended", "root", j.spec.Root, "err", err)
				break
			}
			if j.post(note{kind: noteFound, info: info, via: "dht"}) != nil {
				return
			}
		}
		select {
		case <-time.After(wait):
		case <-j.ctx.Done():
		}
	}
}

// isFellow reports whether the candidate probably fetches the root, too.
func (c *candidate) isFellow() bool {
	return c.sess == nil && (c.via == viaExchange || c.via == viaAsks)
}

// found adds a candidate or teaches a known one new addresses.
func (j *job) found(info peer.AddrInfo, via string) {
	if info.ID == j.swarm.cfg.Host.ID() || !j.allowed(info.ID) {
		return
	}
	c := j.cands[info.ID]
	if c == nil {
		if len(j.cands) >= candidatesMax || via == viaExchange && len(j.cands) >= exchangedMax {
			return
		}
		j.look = true
		j.cands[info.ID] = &candidate{info: info, via: via}
		if c := j.cands[info.ID]; c.isFellow() {
			j.step(sched.Event{Kind: sched.Heard, Name: nameOf(info.ID)})
		}
		return
	}
	if len(c.info.Addrs) == 0 && len(info.Addrs) > 0 {
		c.next, j.look = time.Time{}, true // it was named before its addresses were known
	}
	for _, a := range info.Addrs {
		if len(c.info.Addrs) < 4*addrsMax && !slices.ContainsFunc(c.info.Addrs, a.Equal) {
			c.info.Addrs = append(c.info.Addrs, a)
		}
	}
}

// dial opens sessions to candidates whose turn has come.
func (j *job) dial() {
	if j.dialing >= dialsMax || len(j.sessions)+j.dialing >= sessionsMax {
		return
	}
	now := time.Now()
	for _, c := range j.due(now) {
		if j.lastID == math.MaxUint16 {
			return // a peer that comes and goes 65,535 times has had its chance
		}
		j.lastID++
		id, info := j.lastID, c.info
		tree := j.claimTree(info.ID, now)
		c.dials = true
		j.dialing++
		j.tasks.Go(func() {
			s, err := j.open(j.ctx, id, info, tree)
			if j.post(note{kind: noteDialed, info: info, sess: s, err: err}) != nil && s != nil {
				s.close(false)
			}
		})
		if j.dialing >= dialsMax || len(j.sessions)+j.dialing >= sessionsMax {
			return
		}
	}
}

// reachable reports whether there is a way to a candidate. One that another peer
// named may have no addresses yet.
func (j *job) reachable(c *candidate) bool {
	return c.via != viaExchange || len(c.info.Addrs) > 0 ||
		j.swarm.cfg.Host.Network().Connectedness(c.info.ID) == network.Connected
}

// due lists the candidates whose turn has come: those that were tried least
// first, and among them those that other peers merely named last.
func (j *job) due(now time.Time) []*candidate {
	var out []*candidate
	for _, c := range j.cands {
		if c.sess == nil && !c.dials && c.banned == "" && !now.Before(c.next) && j.allowed(c.info.ID) && j.reachable(c) {
			out = append(out, c)
		}
	}
	slices.SortFunc(out, func(a, b *candidate) int {
		if n := a.tries - b.tries; n != 0 {
			return n
		}
		return cmp.Compare(rank(a.via), rank(b.via))
	})
	return out
}

func rank(via string) int {
	if via == viaExchange {
		return 1
	}
	return 0
}

// makeRoom hangs up on the session that has been of no use for longest when
// there are as many as there may be and a peer that is not among them waits.
func (j *job) makeRoom(now time.Time) {
	if len(j.sessions) < sessionsMax || len(j.due(now)) == 0 {
		return
	}
	var idlest *session
	for _, s := range j.sessions {
		if idlest == nil || s.useful.Before(idlest.useful) {
			idlest = s
		}
	}
	if now.Sub(idlest.useful) >= uselessAfter {
		j.hangUp(idlest, "sent nothing, and gave way to another", false)
		j.step(sched.Event{Kind: sched.Left, Peer: idlest.id})
	}
}

// dialed takes in the outcome of one open.
func (j *job) dialed(n note) {
	c := j.cands[n.info.ID]
	c.dials, j.look = false, true
	j.dialing--
	if c.banned != "" { // since it was dialled
		if n.sess != nil {
			n.sess.close(true)
		}
		j.treeLost(n.info.ID)
		return
	}
	if n.err == nil && j.tree != nil && n.sess.leaves != len(j.tree.Leaves) {
		n.err = wire.Errorf(wire.Malformed, "it says the root has %d leaves", n.sess.leaves)
		n.sess.close(true)
		j.ban(c, n.err.Error())
		return
	}
	if n.err != nil {
		j.treeLost(n.info.ID)
		j.swarm.log.Debug("no session", "peer", n.info.ID, "err", n.err)
		j.later(c, n.err)
		return
	}
	c.sess, c.last = n.sess, nil
	n.sess.useful = time.Now()
	j.sessions[n.sess.id] = n.sess
	j.listOpen()
	n.sess.start()
	j.enlist(n.sess)
	j.wantTree(n.sess)
}

// later has a candidate tried again after a growing while.
func (j *job) later(c *candidate, err error) {
	c.last = err
	first := retryFirst
	if c.isFellow() && wire.KindOf(err) == wire.NotFound {
		first = retryFellow
	}
	c.next = time.Now().Add(min(first<<min(c.tries, 10), retryLast))
	c.tries++
	if j.dialAt.IsZero() || c.next.Before(j.dialAt) {
		j.dialAt = c.next
	}
}

// enlist makes a session known to the scheduler.
func (j *job) enlist(s *session) {
	if j.sched == nil {
		return
	}
	if s.leaves != len(j.tree.Leaves) {
		j.hangUp(s, fmt.Sprintf("said that the root has %d leaves", s.leaves), true)
		return
	}
	j.askLane(s) // before the first leaf is asked for
	j.step(sched.Event{Kind: sched.Joined, Peer: s.id, Have: s.have, Name: nameOf(s.peer)})
}

// nameOf hashes a peer's identity, the same on every peer.
func nameOf(p peer.ID) uint64 {
	h := fnv.New64a()
	_, _ = io.WriteString(h, string(p))
	return h.Sum64()
}

// closed takes in that a session's stream ended.
func (j *job) closed(s *session, err error) {
	if j.sessions[s.id] != s {
		return
	}
	var broke *wire.Error // found here: what the other side gives as its reason to end is no proof
	if errors.As(err, &broke) && (broke.Kind == wire.Malformed || broke.Kind == wire.TooLarge) {
		j.hangUp(s, broke.Text, true)
	} else {
		j.hangUp(s, fmt.Sprintf("connection ended: %v", err), false)
	}
	j.step(sched.Event{Kind: sched.Left, Peer: s.id})
}

// hangUp ends a session.
func (j *job) hangUp(s *session, why string, ban bool) {
	s.close(ban)
	j.look = true
	delete(j.sessions, s.id)
	j.listOpen()
	j.treeLost(s.peer)
	c := j.cands[s.peer]
	c.sess = nil
	if ban {
		j.ban(c, why)
		return
	}
	j.later(c, errors.New(why))
}

func (j *job) ban(c *candidate, why string) {
	c.banned = why
	j.banned = append(j.banned, Banned{c.info.ID, why})
	j.swarm.log.Warn("peer banned for this download", "peer", c.info.ID, "why", why)
}

// lied bans a peer whose bytes were wrong. The scheduler does so too, but not
// when the peer has left, or left and come back, before they were looked at.
func (j *job) lied(p peer.ID) {
	const why = "sent bytes that do not match the root"
	c := j.cands[p]
	switch {
	case c == nil || c.banned != "":
	case c.sess != nil:
		s := c.sess
		j.hangUp(s, why, true)
		j.step(sched.Event{Kind: sched.Left, Peer: s.id})
	default:
		j.ban(c, why)
	}
}

func (j *job) listOpen() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.connected = j.connected[:0]
	for _, s := range j.sessions {
		j.connected = append(j.connected, source{s.peer, s.private})
	}
}
