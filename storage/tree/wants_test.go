package tree

import (
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/storage/block/piece"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/directory"
)

// wantsOf collects what is wanted by what watchers are told alone.
func wantsOf(b *bench) func() map[chunk.CID]Want {
	told := map[chunk.CID]Want{}
	b.t.Cleanup(b.WatchWants(func(list []Want) {
		for _, w := range list {
			told[w.Piece.ID] = w
			if w.Copies == 0 {
				delete(told, w.Piece.ID)
			}
		}
	}))
	return func() map[chunk.CID]Want {
		synctest.Wait()
		return told
	}
}

func all(b *bench) map[chunk.CID]Want {
	out := map[chunk.CID]Want{}
	for w := range b.Wants() {
		out[w.Piece.ID] = w
	}
	return out
}

func TestWatchWants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, "ann")
		told := wantsOf(b)
		same := func() {
			t.Helper()
			if got, want := told(), all(b); !maps.Equal(got, want) {
				t.Errorf("told was %v, wanted is %v", got, want)
			}
		}
		id := func(text string) chunk.CID { return chunk.SumRaw([]byte(text)) }
		b.ok(b.put("/a/1", "one"))
		b.ok(b.put("/a/2", "two"))
		b.ok(b.put("/b", "one"))
		b.ok(b.put("/empty", ""))
		same()
		if len(told()) != 2 || told()[id("one")] != (Want{piece.Piece{ID: id("one"), Size: 3}, 3, false}) {
			t.Errorf("wanted is %v", told())
		}
		b.ok(b.SetCopies(ctx, "/b", 5))
		b.ok(b.Pin(ctx, "/a"))
		b.ok(b.Pin(ctx, "/a"))
		b.ok(b.Pin(ctx, "/later"))
		same()
		if got := told()[id("one")]; got.Copies != 5 || !got.Pinned || !told()[id("two")].Pinned {
			t.Errorf("it has become %v", got)
		}
		other := newFakeNames(peer.ID("peer bob"))
		x := openBench(t, other, newFakeBytes())
		meet(b.names, other)
		x.ok(x.Pin(ctx, "/b"))
		meet(b.names, other)
		if got := b.Pins(); len(got) != 3 || got[1] != (Pin{"peer bob", "/b"}) {
			t.Errorf("the pins are %v", got)
		}
		b.ok(b.Remove(ctx, "/a", true))
		b.ok(b.put("/later/3", "three"))
		same()
		if told()[id("one")].Pinned || !told()[id("three")].Pinned {
			t.Errorf("after a removal %v", told())
		}
		b.ok(b.Unpin(ctx, "/later"))
		b.want(b.Unpin(ctx, "/b"), ErrNotExist)
		same()
		b.names.pass(2 * Keep)
		for range 3 {
			_, err := b.Expire(ctx, b.names.time())
			b.ok(err)
		}
		same()
		if len(told()) != 2 { // "one" of /b, and "three"
			t.Errorf("in the end %v", told())
		}
		_, pinned := openBench(t, b.names, b.bytes), all(b)
		if again := all(openBench(t, b.names, b.bytes)); !maps.Equal(again, pinned) {
			t.Errorf("opened again %v is wanted, before %v", again, pinned)
		}
		_ = x.Close()
		_ = b.Close()
	})
}

// TestExpiringByItself: a tree that is left alone deletes what is old, unless its clock may be wrong.
func TestExpiringByItself(t *testing.T) {
	for _, trusted := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			n := newFakeNames(peer.ID("peer ann"))
			x, err := Open(Config{Self: n.self, Names: n, Bytes: newFakeBytes(), Now: n.time, Trusted: func() bool { return trusted }})
			must(t, err)
			b := &bench{x, t, n, x.cfg.Bytes.(*fakeBytes)}
			b.ok(b.put("/f", "1"))
			b.ok(b.Remove(ctx, "/f", false))
			n.pass(Keep + time.Second)
			<-time.After(4 * expireEvery)
			synctest.Wait()
			if got := n.live() == 0; got != trusted {
				t.Errorf("with a clock that is trusted (%v) %d records are left", trusted, n.live())
			}
			_ = b.Close()
		})
	}
}

// TestStrangers: records that are no versions, or not those that their keys promise, change nothing and are counted.
func TestStrangers(t *testing.T) {
	b := newBench(t, "ann")
	b.ok(b.put("/f", "text"))
	h, err := b.History("/f")
	b.ok(err)
	var key string
	for r := range b.names.Scan(filePrefix) {
		key = r.Key
	}
	good := b.names.records[key]
	for i, r := range []*directory.Record{
		{Key: "file/zz", Value: good.Value, Author: good.Author},
		{Key: "file/" + key[5:], Value: append(slices.Clone(good.Value), 0x78, 1), Author: good.Author},
		{Key: key, Value: good.Value, Author: "peer eve"},
		{Key: "pin/x", Value: good.Value, Author: good.Author},
		{Key: pinKey("peer ann", "/f"), Value: []byte("\x0a\x02/f"), Author: "peer eve"},
		{Key: pinKey("peer eve", "/f"), Value: []byte("\x0a\x02/g"), Author: "peer eve"},
		{Key: pinKey("peer eve", "/../f"), Value: []byte("\x0a\x05/../f"), Author: "peer eve"},
	} {
		r.Time = good.Time + 1
		b.names.merge(r)
		e, err := b.Stat("/f")
		if r.Key != key && (err != nil || e.Version != h[0].Version) {
			t.Errorf("record %d changed the tree: %v", i, err)
		}
		b.names.mu.Lock()
		if r.Key == key { // its own record was written over: then the version is gone, not changed
			if err == nil {
				t.Errorf("record %d passes for a version", i)
			}
			b.names.records[key] = good
		} else {
			delete(b.names.records, r.Key)
		}
		b.names.mu.Unlock()
		b.apply(key)
	}
	if len(b.Pins()) != 0 {
		t.Errorf("the pins are %v", b.Pins())
	}
	if s := b.Status(); s.Strange != 2 || s.Versions != 1 {
		t.Errorf("the status is %+v", s)
	}
	b.names.drop(key)
	b.shows(map[string]string{})
}
