package inventory

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/storage/chunk"
)

// cid makes the n-th piece.
func cid(n int) chunk.CID {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(n))
	return chunk.CID{Codec: chunk.Raw, Sum: sha256.Sum256(b[:])}
}

func slotOf(t testing.TB, b *Book, n int) Slot {
	t.Helper()
	s, err := b.Member(peer.ID(fmt.Sprint("member ", n)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// model is a book without any thought.
type model map[int]map[chunk.CID]bool

// check compares a book with the model in everything that can be asked.
func check(t *testing.T, b *Book, m model, pieces int) {
	t.Helper()
	all := map[chunk.CID]bool{}
	for n, held := range m {
		s := slotOf(t, b, n)
		if b.Count(s) != len(held) {
			t.Fatalf("member %d holds %d, want %d", n, b.Count(s), len(held))
		}
		var sums Sums
		for c := range held {
			sums[c.Sum[0]] += mix(c)
			all[c] = true
		}
		if *b.Sums(s) != sums {
			t.Fatalf("member %d: the sums differ", n)
		}
		seen := 0
		for i := range Buckets {
			for _, c := range b.Bucket(s, i) {
				if !held[c] {
					t.Fatalf("member %d: %v is listed", n, c)
				}
				seen++
			}
		}
		if seen != len(held) {
			t.Fatalf("member %d: %d listed, want %d", n, seen, len(held))
		}
	}
	for i := range pieces {
		for n, held := range m {
			if b.Has(slotOf(t, b, n), cid(i)) != held[cid(i)] {
				t.Fatalf("member %d and piece %d", n, i)
			}
		}
		if got := len(slices.Collect(b.Holders(cid(i)))); got != holders(m, cid(i)) {
			t.Fatalf("piece %d has %d holders, want %d", i, got, holders(m, cid(i)))
		}
	}
	if b.Pieces() != len(all) {
		t.Fatalf("%d pieces, want %d", b.Pieces(), len(all))
	}
}

func holders(m model, c chunk.CID) (n int) {
	for _, held := range m {
		if held[c] {
			n++
		}
	}
	return n
}

func TestBookAgainstModel(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 1))
		b, m := New(), model{}
		pieces, members := 200+rng.IntN(800), 1+rng.IntN(100) // more than one word of holders, now and then
		for range 5000 {
			n, c := rng.IntN(members), cid(rng.IntN(pieces))
			if m[n] == nil {
				m[n] = map[chunk.CID]bool{}
			}
			switch held := rng.IntN(3) > 0; {
			case rng.IntN(500) == 0:
				b.Forget(peer.ID(fmt.Sprint("member ", n)))
				delete(m, n)
			default:
				changed, err := b.Set(slotOf(t, b, n), c, held)
				if err != nil || changed != (m[n][c] != held) {
					t.Fatalf("seed %d: changed %v, %v", seed, changed, err)
				}
				if held {
					m[n][c] = true
				} else {
					delete(m[n], c)
				}
			}
		}
		check(t, b, m, pieces)
		for n := range maps.Clone(m) {
			bucket, now := rng.IntN(Buckets), []chunk.CID{}
			for i := range pieces {
				if c := cid(i); int(c.Sum[0]) == bucket && rng.IntN(2) == 0 {
					now = append(now, c, c, cid(i+1)) // twice, and one that is of another bucket
				}
			}
			added, removed, err := b.Replace(slotOf(t, b, n), bucket, now)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range added {
				m[n][c] = true
			}
			for _, c := range removed {
				delete(m[n], c)
			}
			for c := range m[n] {
				if int(c.Sum[0]) == bucket && !slices.Contains(now, c) {
					t.Fatalf("%v was to go", c)
				}
			}
		}
		check(t, b, m, pieces)
	}
}

func TestBounds(t *testing.T) {
	b := New()
	for n := range MembersMax {
		slotOf(t, b, n)
	}
	if _, err := b.Member("one more"); !errors.Is(err, ErrMembers) {
		t.Errorf("one member too many: %v", err)
	}
	b.Forget("member 7")
	if s, err := b.Member("one more"); err != nil || s != 7 {
		t.Errorf("slot %d, %v", s, err)
	}
}

func TestAMemberThatClaimsEverything(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes 150 MB")
	}
	b := New()
	liar, other := slotOf(t, b, 1), slotOf(t, b, 2)
	before := heap()
	var err error
	n := 0
	for ; err == nil; n++ {
		_, err = b.Set(liar, cid(n), true)
	}
	if !errors.Is(err, ErrPieces) || b.Count(liar) != PiecesMax {
		t.Errorf("%d pieces, %v", b.Count(liar), err)
	}
	t.Logf("%d pieces: %d MB", n-1, (heap()-before)>>20)
	if _, err := b.Set(other, cid(-1), true); err != nil {
		t.Errorf("another member suffers: %v", err)
	}
	if _, err := b.Set(liar, cid(0), false); err != nil {
		t.Error(err)
	}
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestMemory holds the promise of the package comment: 100,000 pieces of 20 members, three copies of each.
func TestMemory(t *testing.T) {
	before := heap()
	b := New()
	for i := range 100_000 {
		for k := range 3 {
			if _, err := b.Set(slotOf(t, b, (i+7*k)%20), cid(i), true); err != nil {
				t.Fatal(err)
			}
		}
	}
	each := float64(heap()-before) / 100_000
	t.Logf("%.0f bytes a piece", each)
	if each > 100 {
		t.Errorf("%.0f bytes a piece, the limit is 100", each)
	}
	runtime.KeepAlive(b)
}

// TestNamesThatCollide: who makes names up can have all but a few of their bits the same.
func TestNamesThatCollide(t *testing.T) {
	b := New()
	s := slotOf(t, b, 1)
	var c chunk.CID
	c.Codec = chunk.Raw
	for n := range 200_000 {
		binary.LittleEndian.PutUint32(c.Sum[1:], uint32(n))
		if _, err := b.Set(s, c, true); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 200_000 {
		binary.LittleEndian.PutUint32(c.Sum[1:], uint32(n))
		if changed, _ := b.Set(s, c, false); !changed {
			t.Fatalf("%d is not there", n)
		}
	}
}

func TestPacked(t *testing.T) {
	ids := []chunk.CID{cid(1), cid(2), {Codec: chunk.DagPB, Sum: cid(3).Sum}}
	got, err := Unpack(Append(nil, ids...), 3)
	if err != nil || !slices.Equal(got, ids) {
		t.Errorf("%v, %v", got, err)
	}
	for name, bad := range map[string][]byte{
		"too many": Append(nil, cid(1), cid(2), cid(3), cid(4)), "cut": Append(nil, cid(1))[:32],
		"another codec": append([]byte{0x71}, make([]byte, 32)...),
	} {
		if _, err := Unpack(bad, 3); !errors.Is(err, ErrPacked) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := UnpackOne(nil); !errors.Is(err, ErrPacked) {
		t.Errorf("nothing: %v", err)
	}
	b := New()
	s := slotOf(t, b, 1)
	for i := range 1000 {
		_, _ = b.Set(s, cid(i), true)
	}
	if sums, err := UnmarshalSums(b.Sums(s).Marshal()); err != nil || sums != *b.Sums(s) {
		t.Errorf("sums: %v", err)
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add(Append(nil, cid(1), cid(2)))
	f.Add([]byte{0x55})
	f.Fuzz(func(t *testing.T, data []byte) {
		ids, err := Unpack(data, 16)
		if err == nil && string(Append(nil, ids...)) != string(data) {
			t.Errorf("%x is not the one form", data)
		}
		if sums, err := UnmarshalSums(data); err == nil && len(data) > 0 && string(sums.Marshal()) != string(data) {
			t.Error("sums are not the one form")
		}
	})
}

func BenchmarkSet(b *testing.B) {
	book := New()
	s := slotOf(b, book, 1)
	ids := make([]chunk.CID, 100_000)
	for i := range ids {
		ids[i] = cid(i)
	}
	for i := 0; b.Loop(); i++ {
		_, _ = book.Set(s, ids[i%len(ids)], i/len(ids)%2 == 0)
	}
}
