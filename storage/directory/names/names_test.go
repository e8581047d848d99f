package names

import (
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
)

// epoch is when the tests take place.
var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

var testPool = Pool{'t', 'e', 's', 't'}

type author struct {
	id  peer.ID
	key crypto.PrivKey
}

// newAuthor makes the n-th author, always the same one.
func newAuthor(t testing.TB, n int) author {
	t.Helper()
	var seed [ed25519.SeedSize]byte
	binary.BigEndian.PutUint64(seed[:], uint64(n))
	key, err := crypto.UnmarshalEd25519PrivateKey(ed25519.NewKeyFromSeed(seed[:]))
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return author{id, key}
}

func (a author) sign(t testing.TB, r Record) *Record {
	t.Helper()
	r.Author = a.id
	out, err := r.Sign(testPool, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// bare makes a record that nobody signed: for what never looks at signatures.
func bare(t testing.TB, a author, r Record) *Record {
	t.Helper()
	r.Author = a.id
	out, err := r.Sign(testPool, noSigner{})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

type noSigner struct{}

func (noSigner) Sign([]byte) ([]byte, error) { return make([]byte, ed25519.SignatureSize), nil }

// fill puts n records into each of the sets, the same ones, spread over a month before epoch.
func fill(t testing.TB, rng *rand.Rand, n int, sets ...*Set) {
	t.Helper()
	a := newAuthor(t, 1)
	for i := range n {
		r := bare(t, a, randomRecord(rng, fmt.Sprintf("common/%06d", i)))
		for _, s := range sets {
			s.Put(r)
		}
	}
}

func randomRecord(rng *rand.Rand, key string) Record {
	value := make([]byte, 80)
	for i := range value {
		value[i] = byte(rng.Uint32())
	}
	ago := time.Duration(rng.Int64N(int64(30 * 24 * time.Hour)))
	return Record{Key: key, Value: value, Time: At(epoch.Add(-ago)) + HLC(rng.IntN(4))}
}

// traffic counts what one side sent.
type traffic struct{ bytes, turns, records int }

func (c *traffic) count(t *Turn) {
	c.bytes += len(t.Ranges) + len(t.Want)
	for _, r := range t.Records {
		c.bytes += r.Size() + 4
	}
	c.records += len(t.Records)
	c.turns++
}

// reconcile runs a session between two sets whose limit is beyond everything, and returns what each side sent.
func reconcile(t testing.TB, a, b *Set) (fromA, fromB traffic) {
	t.Helper()
	sa, sb := NewSession(a, 1<<63, 0), NewSession(b, 1<<63, 0)
	turn := sa.Start()
	fromA.count(&turn)
	sets, sides, counts := [2]*Set{b, a}, [2]*Session{sb, sa}, [2]*traffic{&fromB, &fromA}
	for i := 0; ; i = 1 - i {
		take(sets[i], turn.Records)
		out, err := sides[i].Step(turn.Ranges, turn.Want, len(turn.Records))
		if err != nil {
			t.Fatal(err)
		}
		if out.Done {
			return fromA, fromB
		}
		turn = out.Turn
		counts[i].count(&turn)
		if counts[i].turns > 5000 {
			t.Fatal("no end")
		}
	}
}

// take merges records into a set by the bare rule.
func take(s *Set, records []*Record) {
	for _, r := range records {
		if old := s.Get(r.Key); old == nil || r.Beats(old) {
			s.Put(r)
		}
	}
}

func sameSet(a, b *Set) bool { return a.Digest() == b.Digest() && a.Len() == b.Len() }
