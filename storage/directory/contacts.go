package directory

import (
	"math/rand/v2"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/storage/directory/names"
)

const (
	// syncEvery is how often two connected members compare what they hold when nothing else makes them.
	syncEvery = time.Minute
	// syncSpread is by how much that varies, so that a pool that woke at once does not stay in step.
	syncSpread = 5 * time.Second

	// yieldTime is how much later the member with the greater id begins: one of two is to begin, the other only if
	// it does not.
	yieldTime = 3 * time.Second

	// crowdStep times the number of members, at most crowdMax, is over what time those that connect at once begin: what the
	// first comparison brings reaches the others as news, and theirs then find nothing.
	crowdStep = 100 * time.Millisecond
	crowdMax  = 4 * time.Second

	// heardDelay is how long a digest that differs may be news on its way before it is a reason to compare.
	heardDelay = 2 * time.Second

	// hurryDelay is within what time a member is compared with when there is a reason.
	hurryDelay = time.Second

	// busyDelay is when a member that had no time is asked again.
	busyDelay = time.Second
	// failDelay is when a member that failed is asked again, twice as long each time up to syncEvery.
	failDelay = 2 * time.Second
)

// contact is what is known of one connected member. Times are of the monotonic clock.
type contact struct {
	due   time.Time // when to compare next
	busy  bool      // a session of ours is on
	again bool      // it became due meanwhile
	fails int
	last  time.Time    // when the last session ended, whoever began it
	heard names.Digest // the latest digest it told of
	still names.Digest // our digest when a session changed nothing: comparing again before it changes is idle
}

// contacts says with whom to compare when.
type contacts struct {
	mu     sync.Mutex
	self   peer.ID
	rng    *rand.Rand
	byID   map[peer.ID]*contact
	met    time.Time // when a session was last completed
	inStep time.Time // when this directory was last known to be in step with any
	wake   chan struct{}
}

func (c *contacts) init(self peer.ID, rng *rand.Rand) {
	c.self, c.rng = self, rng
	c.byID = map[peer.ID]*contact{}
	c.wake = make(chan struct{}, 1)
}

// connected notes that there is a connection to p now.
func (c *contacts) connected(p peer.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p == c.self {
		return
	}
	x := c.byID[p]
	if x == nil {
		x = &contact{}
		c.byID[p] = x
	}
	x.fails = 0
	c.bring(x, c.turnOf(p)+c.crowd())
}

// crowd is a wait that spreads the beginnings of many.
func (c *contacts) crowd() time.Duration {
	return c.jitter(min(time.Duration(len(c.byID)+1)*crowdStep, crowdMax))
}

// turnOf is how long this side waits for the other to begin.
func (c *contacts) turnOf(p peer.ID) time.Duration {
	if c.self < p {
		return 0
	}
	return yieldTime
}

// bring moves a contact's due time to at most d from now.
func (c *contacts) bring(x *contact, d time.Duration) {
	x.again = x.busy
	if at := time.Now().Add(d); x.due.IsZero() || at.Before(x.due) {
		x.due = at
		signal(c.wake)
	}
}

// hurry has all members compared soon: something did not reach them as news, something was dropped here, or the pool's
// time moved, so that what was refused may now come in.
func (c *contacts) hurry() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, x := range c.byID {
		c.bring(x, c.jitter(hurryDelay))
	}
}

func (c *contacts) jitter(d time.Duration) time.Duration {
	return time.Duration(c.rng.Int64N(int64(d)))
}

// noteDigest notes a member's digest; own is this directory's.
func (c *contacts) noteDigest(p peer.ID, digest, own names.Digest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	x := c.byID[p]
	if x == nil {
		return
	}
	x.heard = digest
	// What differs and stayed so through a session is not worth another before the minute is over.
	if digest != own && x.still != own {
		c.bring(x, heardDelay+c.jitter(heardDelay))
	}
}

// update makes the contacts those that are connected.
func (c *contacts) update(connected []peer.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := map[peer.ID]bool{}
	for _, p := range connected {
		now[p] = true
		if c.byID[p] == nil && p != c.self {
			c.byID[p] = &contact{due: time.Now().Add(c.turnOf(p) + c.crowd())}
		}
	}
	for p, x := range c.byID {
		if !now[p] && !x.busy {
			delete(c.byID, p)
		}
	}
}

// next returns the member whose time has come first and marks it busy, or how long to wait.
func (c *contacts) next() (p peer.ID, wait time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	wait = syncEvery
	var best *contact
	for id, x := range c.byID {
		if !x.busy && (best == nil || x.due.Before(best.due)) {
			p, best = id, x
		}
	}
	if best == nil {
		return "", wait
	}
	if wait = min(wait, best.due.Sub(now)); wait > 0 {
		return "", wait
	}
	best.busy = true
	return p, 0
}

// idle reports whether there is no need to compare although it is due, because the latest digest heard is our own.
func (c *contacts) idle(p peer.ID, own names.Digest) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	x := c.byID[p]
	return x != nil && x.heard == own && !x.last.IsZero() && time.Since(x.last) < syncEvery
}

// outcome is how a session ended.
type outcome uint8

const (
	inStep  outcome = iota // both hold the same
	changed                // something moved
	still                  // they differ, and nothing could be done about it
	busy                   // the other had no time
	failed
)

// ended notes how a session with p ended. own is the digest then; began says that this side began it.
func (c *contacts) ended(p peer.ID, began bool, how outcome, own names.Digest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if how != busy && how != failed {
		c.met = now
	}
	x := c.byID[p]
	if x == nil {
		return
	}
	wait := syncEvery + c.turnOf(p) + c.jitter(syncSpread)
	if began && x.again {
		wait = c.jitter(hurryDelay)
	}
	if began {
		x.busy, x.again = false, false
	}
	switch how {
	case busy:
		wait = busyDelay + c.jitter(busyDelay)
	case failed:
		wait = min(failDelay<<x.fails+c.jitter(failDelay), wait)
		x.fails = min(x.fails+1, 6)
	default:
		x.fails, x.last, x.still = 0, now, names.Digest{}
		if how == still {
			x.still = own
		}
		if how == inStep {
			c.inStep, x.heard = now, own
		}
	}
	// What the other side began does not put off what there is a reason for here.
	if began || how == inStep || how != busy && how != failed && x.due.Sub(now) > hurryDelay {
		x.due = now.Add(wait)
	}
	signal(c.wake)
}

// lastMet is when a session was last completed.
func (c *contacts) lastMet() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.met
}

// Heard notes the digest of a member that was heard of otherwise, such as in a heartbeat. If it differs from the own
// one for longer than news takes, the two compare before their minute is over.
func (d *Directory) Heard(p peer.ID, digest Digest) { d.contacts.noteDigest(p, digest, d.Digest()) }
