package names

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// drawRecords draws records that often meet: few keys, few times, few authors, the same thing said twice.
func drawRecords(t testing.TB, rt *rapid.T, authors []author) []*Record {
	one := rapid.Custom(func(rt *rapid.T) *Record {
		r := Record{
			Key:  fmt.Sprint("key", rapid.IntRange(0, 3).Draw(rt, "key")),
			Time: At(epoch) + HLC(rapid.IntRange(0, 3).Draw(rt, "time")),
		}
		if r.Deleted = rapid.Bool().Draw(rt, "deleted"); !r.Deleted {
			r.Value = []byte{byte(rapid.IntRange(0, 2).Draw(rt, "value"))}
		}
		return bare(t, authors[rapid.IntRange(0, len(authors)-1).Draw(rt, "author")], r)
	})
	return rapid.SliceOfN(one, 0, 30).Draw(rt, "records")
}

// mergeAll offers records to a new replica in order.
func mergeAll(t testing.TB, records []*Record) *Replica {
	r := NewReplica(testPool, newAuthor(t, 9).id, noSigner{})
	for _, rec := range records {
		if r.Judge(rec, epoch) == Wins {
			r.Apply(rec)
		}
	}
	return r
}

// state is all that a replica holds.
func state(r *Replica) string {
	out := ""
	for rec := range r.Set.Scan("", "") {
		out += fmt.Sprintf("%s %s %x %v %s\n", rec.Key, rec.Time, rec.Value, rec.Deleted, rec.Author)
	}
	return out + r.Set.Digest().String() + fmt.Sprint(r.Set.Len(), r.Set.Live(), r.Set.Bytes())
}

func TestMergeLaws(t *testing.T) {
	authors := []author{newAuthor(t, 1), newAuthor(t, 2)}
	rapid.Check(t, func(rt *rapid.T) {
		a, b := drawRecords(t, rt, authors), drawRecords(t, rt, authors)
		want := state(mergeAll(t, slices.Concat(a, b)))
		for law, order := range map[string][]*Record{
			"commutative":        slices.Concat(b, a),
			"idempotent":         slices.Concat(a, b, a, b),
			"in any order":       rapid.Permutation(slices.Concat(a, b)).Draw(rt, "order"),
			"the digest follows": slices.SortedFunc(slices.Values(slices.Concat(a, b)), byTime),
		} {
			if got := state(mergeAll(t, order)); got != want {
				rt.Fatalf("%s: %s\nwanted %s", law, got, want)
			}
		}
		// Associative: merging what others have merged is merging all.
		left, right := mergeAll(t, a), mergeAll(t, b)
		both := mergeAll(t, slices.Concat(slices.Collect(left.Set.All()), slices.Collect(right.Set.All())))
		if got := state(both); got != want {
			rt.Fatalf("associative: %s\nwanted %s", got, want)
		}
	})
}

func TestBeatsIsATotalOrder(t *testing.T) {
	authors := []author{newAuthor(t, 1), newAuthor(t, 2)}
	rapid.Check(t, func(rt *rapid.T) {
		records := drawRecords(t, rt, authors)
		for _, a := range records {
			for _, b := range records {
				if same := a.ID() == b.ID(); a.Beats(b) == b.Beats(a) != same || same && a.Beats(b) {
					rt.Fatalf("%+v and %+v", a, b)
				}
				for _, c := range records {
					if a.Beats(b) && b.Beats(c) && !a.Beats(c) {
						rt.Fatal("not transitive")
					}
				}
			}
		}
	})
}

// TestSetAgainstAMap holds the two-level lists against plain ones.
func TestSetAgainstAMap(t *testing.T) {
	who := newAuthor(t, 1)
	rapid.Check(t, func(rt *rapid.T) {
		s, plain := NewSet(), map[string]*Record{}
		for range rapid.IntRange(0, 1500).Draw(rt, "n") {
			key := fmt.Sprint(rapid.IntRange(0, 1000).Draw(rt, "key"))
			if rapid.IntRange(0, 3).Draw(rt, "what") == 0 {
				s.Drop(key)
				delete(plain, key)
				continue
			}
			r := bare(t, who, Record{Key: key, Time: HLC(rapid.IntRange(0, 3000).Draw(rt, "time"))})
			s.Put(r)
			plain[key] = r
		}
		fresh := NewSet()
		var keys []string
		for key, r := range plain {
			fresh.Put(r)
			keys = append(keys, key)
		}
		slices.Sort(keys)
		var got []string
		for r := range s.Scan("", "") {
			got = append(got, r.Key)
		}
		if !slices.Equal(got, keys) || s.Digest() != fresh.Digest() || s.Bytes() != fresh.Bytes() {
			rt.Fatalf("%d keys, wanted %d", len(got), len(keys))
		}
		all := slices.Collect(s.All())
		if len(all) != len(plain) || !slices.IsSortedFunc(all, byTime) {
			rt.Fatal("out of order")
		}
		newest := slices.Collect(s.Newest())
		slices.Reverse(newest)
		if !slices.Equal(newest, all) {
			rt.Fatal("backward is another order")
		}
	})
}

func TestScanPrefix(t *testing.T) {
	s, who := NewSet(), newAuthor(t, 1)
	for _, key := range []string{"a", "a/1", "a/2", "a/3", "b", "é"} {
		s.Put(bare(t, who, Record{Key: key}))
	}
	for _, c := range []struct{ prefix, from, want string }{
		{"a/", "", "[a/1 a/2 a/3]"}, {"a/", "a/2", "[a/2 a/3]"}, {"", "b", "[b é]"}, {"c", "", "[]"}, {"a", "", "[a a/1 a/2 a/3]"},
	} {
		got := []string{}
		for r := range s.Scan(c.prefix, c.from) {
			got = append(got, r.Key)
		}
		if fmt.Sprint(got) != c.want {
			t.Errorf("%q from %q: %v, wanted %s", c.prefix, c.from, got, c.want)
		}
	}
}

func TestTombstonesExpire(t *testing.T) {
	who := newAuthor(t, 1)
	r := NewReplica(testPool, who.id, who.key)
	write := func(c Change, at time.Time) {
		rec, err := r.Stamp(c, at)
		if err != nil || rec == nil {
			t.Fatal(rec, err)
		}
		r.Apply(rec)
	}
	write(Change{Key: "k"}, epoch)
	write(Change{Key: "k", Delete: true}, epoch)
	write(Change{Key: "live"}, epoch)
	if got := r.Expire(epoch.Add(TombstoneLife)); len(got) != 0 {
		t.Errorf("%q expire too early", got)
	}
	dead := r.Set.Get("k")
	if got := r.Expire(epoch.Add(TombstoneLife + time.Second)); fmt.Sprint(got) != "[k]" {
		t.Errorf("%q expire", got)
	}
	r.Set.Drop("k")
	if v := r.Judge(dead, epoch.Add(TombstoneLife+time.Second)); v != Expired {
		t.Errorf("offered again it is %s", v)
	}
	if rec, err := r.Stamp(Change{Key: "k", Delete: true}, epoch); rec != nil || err != nil {
		t.Errorf("deleting nothing: %v, %v", rec, err)
	}
}
