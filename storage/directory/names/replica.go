package names

import (
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	// TombstoneLife is how long a deletion is remembered. A peer that was away for longer yields (see Hello).
	TombstoneLife = 30 * 24 * time.Hour

	// staleAfter is how long after it last was in step with the pool a peer counts as stale. The day less than
	// TombstoneLife covers clocks that differ and tombstones that were written while it caught up.
	staleAfter = TombstoneLife - 24*time.Hour

	// RecordsMax and BytesMax bound what a replica holds: records with new keys beyond that are refused.
	RecordsMax = 1 << 20
	BytesMax   = 1 << 30
)

// Verdict says what becomes of a record that was offered.
type Verdict uint8

// The verdicts. Only Wins changes the replica.
const (
	Wins    Verdict = iota // it is to be the record of its key
	Known                  // it is held already
	Older                  // a later one is held
	Ahead                  // it is too far in the future; it may be offered again later
	Expired                // a tombstone that nobody needs to remember any more
	Full                   // no room for another key
)

// String names the verdict.
func (v Verdict) String() string {
	return [...]string{"wins", "known", "older", "too far ahead", "expired", "no room"}[v]
}

// Change is a wish of this peer: Key shall have Value, or be deleted.
type Change struct {
	Key    string
	Value  []byte
	Delete bool
}

// Replica is one peer's copy of the directory: a Set, the clock, and the rules by which records come in. Deciding and
// doing are apart (Judge, Stamp and Restamp decide, Apply does), so that the caller can bring a record to its disk
// in between.
type Replica struct {
	Pool   Pool
	Set    *Set
	Clock  Clock
	Synced time.Time // when it was last in step with another peer, in the pool's time; zero: never

	self   peer.ID
	signer Signer
}

// NewReplica returns an empty replica of the peer that signs with signer.
func NewReplica(pool Pool, self peer.ID, signer Signer) *Replica {
	return &Replica{Pool: pool, Set: NewSet(), self: self, signer: signer}
}

// Self is the peer whose replica it is.
func (r *Replica) Self() peer.ID { return r.self }

// Stamp makes the signed record of a change, later than what the key holds. The error says what is wrong with the
// change. Deleting a key that has no value yields nil: nothing to record.
func (r *Replica) Stamp(c Change, wall time.Time) (*Record, error) {
	old := r.Set.Get(c.Key)
	if c.Delete && (old == nil || old.Deleted) {
		return nil, CheckKey(c.Key)
	}
	if old == nil && r.full() {
		return nil, fmt.Errorf("the directory is full: %d records, %d bytes", r.Set.Len(), r.Set.Bytes())
	}
	rec := Record{Key: c.Key, Value: c.Value, Deleted: c.Delete, Author: r.self}
	if err := rec.check(); err != nil {
		return nil, err
	}
	var after HLC
	if old != nil {
		after = old.Time
	}
	rec.Time = r.Clock.Next(wall, after)
	return rec.Sign(r.Pool, r.signer)
}

// Judge says what becomes of a record from elsewhere. It changes nothing, and does not look at the signature.
func (r *Replica) Judge(rec *Record, wall time.Time) Verdict {
	limit := r.Clock.Limit(wall)
	old := r.Set.Get(rec.Key)
	switch {
	case old != nil && old.id == rec.id:
		return Known
	case rec.Time > limit && (old == nil || old.Time <= limit || !rec.Beats(old)):
		// One that beats another beyond the limit may come in: neither counts against any within it, and peers
		// that both hold such a record have to agree on one, so that its author sees it and stamps it anew.
		return Ahead
	case rec.Deleted && rec.Time < r.horizon(wall):
		return Expired
	case old == nil && r.full():
		return Full
	case old == nil || rec.Beats(old):
		return Wins
	case old.Time > limit:
		// The held record was taken in when the clock was wrong. What a right clock refuses counts for less than all
		// that it accepts; whoever wrote it stamps it anew.
		return Wins
	}
	return Older
}

// full reports whether there is no room for another key.
func (r *Replica) full() bool { return r.Set.Len() >= RecordsMax || r.Set.Bytes() >= BytesMax }

// Apply makes rec the record of its key, whatever Judge says, and notes its time.
func (r *Replica) Apply(rec *Record) {
	r.Set.Put(rec)
	r.Clock.See(rec.Time)
}

// Restamp returns this peer's own records that are ahead of the limit, signed anew with times that are moved by shift
// (negative) and at most the present: that is what they would have been given by a clock that was right. It is for when
// the clock is Confirmed, and was not when those records were made: others have refused them so far. A clock that only
// this peer believes in must not make its records older than they are.
func (r *Replica) Restamp(shift time.Duration, wall time.Time) ([]*Record, error) {
	limit := r.Clock.Limit(wall)
	var ahead []*Record
	for rec := range r.Set.Newest() {
		if rec.Time <= limit {
			break
		}
		if rec.Author == r.self {
			ahead = append(ahead, rec)
		}
	}
	now := At(r.Clock.Now(wall))
	last := HLC(0)
	out := make([]*Record, 0, len(ahead))
	for _, rec := range slices.Backward(ahead) {
		moved := *rec
		moved.Time = max(last+1, min(At(rec.Time.Time().Add(min(shift, 0))), now))
		signed, err := moved.Sign(r.Pool, r.signer)
		if err != nil {
			return nil, err
		}
		last = moved.Time
		out = append(out, signed)
	}
	return out, nil
}

// Expire returns the keys of the tombstones that need not be remembered any more.
func (r *Replica) Expire(wall time.Time) []string {
	horizon := r.horizon(wall)
	var keys []string
	for rec := range r.Set.All() {
		if rec.Time >= horizon {
			break
		}
		if rec.Deleted {
			keys = append(keys, rec.Key)
		}
	}
	return keys
}

// horizon is the time before which tombstones are forgotten.
func (r *Replica) horizon(wall time.Time) HLC { return At(r.Clock.Now(wall).Add(-TombstoneLife)) }

// Hello is how a peer introduces its replica to another.
type Hello struct {
	Digest Digest
	Len    int
	Clock  Reading
	// Fresh: it was never in step with another peer. Stale: it was, but longer ago than deletions are remembered.
	// A stale peer yields to one that is neither: what it had when it was last in step and the other lacks was
	// deleted meanwhile, so it drops that instead of bringing it back.
	Fresh, Stale bool
}

// Hello says what this replica is.
func (r *Replica) Hello(wall time.Time) Hello {
	return Hello{
		Digest: r.Set.Digest(), Len: r.Set.Len(), Clock: r.Clock.Read(wall),
		Fresh: r.Synced.IsZero(),
		Stale: !r.Synced.IsZero() && r.Clock.Now(wall).Sub(r.Synced) > staleAfter,
	}
}

// Hear takes the hello of another peer. It returns by how much the pool's time moved. The caller goes on with Restamp
// if the clock is then Confirmed.
func (r *Replica) Hear(from peer.ID, h Hello, wall time.Time) time.Duration {
	return r.Clock.Hear(from, h.Clock, wall)
}

// InStep notes that this replica now holds all that another held. fresh is what the other said of itself: being in
// step with one who has nothing does not make this one current.
func (r *Replica) InStep(fresh bool, wall time.Time) {
	if !fresh || r.Synced.IsZero() {
		r.Synced = r.Clock.Now(wall)
	}
}

// Session begins a reconciliation with a replica, once both have said hello.
func (r *Replica) Session(own, other Hello, wall time.Time) *Session {
	limit := r.Clock.Limit(wall)
	for newest := range r.Set.Newest() {
		if newest.Time > limit { // see Judge
			limit = endPoint.time
		}
		break
	}
	return NewSession(r.Set, limit, r.yield(own, other))
}

// yield returns the time before which this replica, stale as it is, drops what the other lacks; 0 if it drops nothing.
func (r *Replica) yield(own, other Hello) HLC {
	if !own.Stale || other.Stale || other.Fresh {
		return 0
	}
	return At(r.Synced.Add(-time.Hour))
}
