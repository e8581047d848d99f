package roster

import (
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/ident"
)

// State is how present a member seems.
type State uint8

// The states, from present to gone.
const (
	Away     State = iota // no heartbeat for a while, as when asleep
	Online                // heartbeats arrive
	Absent                // away for more than AbsentAfter: what only it had is being copied elsewhere
	Departed              // away for more than DepartedAfter, or left, or evicted
)

// String names the state in lower case.
func (s State) String() string {
	return [...]string{"away", "online", "absent", "departed"}[min(s, Departed)]
}

// Power is what a member runs on.
type Power uint8

// The kinds of power.
const (
	PowerUnknown Power = iota
	PowerMains
	PowerBattery
)

// String names the power in lower case.
func (p Power) String() string {
	return [...]string{"unknown", "mains", "battery"}[min(p, PowerBattery)]
}

// Lends is what a member offers the pool, by its own word. It is comparable.
type Lends struct {
	Cores    uint32 // processor cores
	Memory   uint64 // bytes
	Space    uint64 // bytes of disk in all
	Free     uint64 // bytes of it not yet used
	Power    Power
	Battery  uint8 // per cent, when it runs on one
	AlwaysOn bool
	Version  string // of shoal; at most LendsText bytes
	System   string // "linux/amd64"; at most LendsText bytes
}

// LendsText bounds each text in Lends, in bytes.
const LendsText = 64

// Member is one peer of the pool, as seen from this one. It is a value; changing it changes nothing.
type Member struct {
	ID       peer.ID
	Name     string
	Role     ident.Role // RoleAdmin exactly if it may sign as admin now
	Standing Reason     // OK: in force; else why not (Lapsed, Early, Left, Evicted, Forged)
	State    State
	Since    time.Time // of the state, by this peer's wall clock
	Seen     time.Time // when it was last heard of, by this peer's wall clock; zero: never
	Ends     time.Time // when its membership ended: eviction, departure, or the certificate running out; zero: not yet
	Lends    Lends
	Self     bool

	certificate ident.Certificate
}

// Certificate returns the certificate that counts for the member, and whether there is one.
func (m Member) Certificate() (ident.Certificate, bool) {
	return m.certificate, m.certificate.Peer != ""
}

// View is the roster at one moment. It is immutable, so any number of goroutines may read it.
type View struct {
	members []Member // ordered by name, then id; those no longer in force too
	index   map[peer.ID]int
	notice  ident.Notice
	digest  [32]byte
	grace   bool
	records []ident.Record
	counts  map[[32]byte]bool
	evicted map[peer.ID][]ident.Revocation
	admins  map[peer.ID]bool
	inForce int
}

// Judge reports whether a peer is a member in force at a wall-clock time, and if not, why. An unknown peer is a
// Stranger.
func (v *View) Judge(p peer.ID, now time.Time) (Member, Reason) {
	i, ok := v.index[p]
	if !ok {
		return Member{ID: p, Standing: Stranger}, Stranger
	}
	m := v.members[i]
	if m.Standing == OK || m.Standing == Lapsed || m.Standing == Early {
		m.Standing = inTime(m.certificate, now)
	}
	return m, m.Standing
}

// Members returns those in force, ordered by name. The slice is the caller's.
func (v *View) Members() []Member { return v.filter(func(m Member) bool { return m.Standing == OK }) }

// Pace is that of a pool of as many members as are in force.
func (v *View) Pace() (beat, away time.Duration) { return Pace(v.inForce) }

// Former returns the peers of whom a certificate is known that is no longer in force.
func (v *View) Former() []Member { return v.filter(func(m Member) bool { return m.Standing != OK }) }

func (v *View) filter(keep func(Member) bool) (out []Member) {
	for _, m := range v.members {
		if keep(m) {
			out = append(out, m)
		}
	}
	return out
}

// Records returns all records that count, in one order: what others need to come to the same result. The slice must not
// be changed.
func (v *View) Records() []ident.Record { return v.records }

// Holds reports whether a record of this hash is among Records.
func (v *View) Holds(hash [32]byte) bool { return v.counts[hash] }

// Revocations returns the evictions of a peer that count.
func (v *View) Revocations(p peer.ID) []ident.Revocation { return slices.Clone(v.evicted[p]) }

// Admin reports whether a peer may sign as admin.
func (v *View) Admin(p peer.ID) bool { return v.admins[p] }

// Notice returns the announcement of the pool's current secret, and whether there is one.
func (v *View) Notice() (ident.Notice, bool) { return v.notice, v.notice.Signer != "" }

// Digest is a digest of the records that count. Two peers with the same records have the same one.
func (v *View) Digest() [32]byte { return v.digest }

// Grace reports that this machine has just started or woken up: it judges nobody, and neither should repair.
func (v *View) Grace() bool { return v.grace }

// clockSkew is how far the clocks of two peers may differ before a fresh certificate is refused as not valid yet.
const clockSkew = 10 * time.Minute

// inTime judges the times of a certificate alone.
func inTime(c ident.Certificate, now time.Time) Reason {
	switch {
	case now.Add(clockSkew).Before(c.NotBefore):
		return Early
	case !now.Before(c.NotAfter):
		return Lapsed
	default:
		return OK
	}
}
