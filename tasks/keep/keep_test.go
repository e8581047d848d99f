package keep

import (
	"bytes"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-os/shoal/storage/block/piece"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/directory"
	"github.com/shoal-os/shoal/storage/tree"
	"github.com/shoal-os/shoal/tasks/job"
)

// names is a directory in memory.
type names struct {
	mu      sync.Mutex
	records map[string]*directory.Record
	watch   func(*directory.Record)
}

func newNames() *names { return &names{records: map[string]*directory.Record{}} }

func (n *names) Scan(prefix string) iter.Seq[*directory.Record] {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []*directory.Record
	for k, r := range n.records {
		if strings.HasPrefix(k, prefix) {
			out = append(out, r)
		}
	}
	return slices.Values(out)
}

func (n *names) Watch(_ string, f func(*directory.Record)) (stop func()) {
	n.watch = f
	return func() {}
}

func (n *names) write(changes ...directory.Change) {
	for _, c := range changes {
		r := &directory.Record{Key: c.Key, Value: c.Value, Deleted: c.Delete}
		n.mu.Lock()
		if n.records[c.Key] = r; c.Delete {
			delete(n.records, c.Key)
		}
		n.mu.Unlock()
		if n.watch != nil {
			n.watch(r)
		}
	}
}

func somePieces(from, n int) (out []piece.Piece) {
	for i := range n {
		data := []byte{byte(from + i), byte((from + i) >> 8)}
		out = append(out, piece.Piece{ID: chunk.SumRaw(data), Size: int64(from + i + 1)})
	}
	return out
}

func TestLists(t *testing.T) {
	all := somePieces(0, 2*ListMax+1)
	changes := Lists(job.ID{1}, all)
	if len(changes) != 3 || !slices.EqualFunc(changes, Lists(job.ID{1}, all), func(a, b directory.Change) bool { return a.Key == b.Key && bytes.Equal(a.Value, b.Value) }) {
		t.Fatalf("%d records", len(changes))
	}
	var got []piece.Piece
	for _, c := range changes {
		if len(c.Value) > directory.ValueMax || !strings.HasPrefix(c.Key, Of(job.ID{1})) {
			t.Errorf("%s of %d bytes", c.Key, len(c.Value))
		}
		list, err := Decode(c.Value)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, list...)
	}
	if !slices.Equal(got, all) {
		t.Error("other pieces came back")
	}
	largest := make([]piece.Piece, ListMax)
	for i := range largest {
		largest[i] = piece.Piece{ID: chunk.SumRaw([]byte{1, byte(i), byte(i >> 8)}), Size: piece.PieceMax}
	}
	if n := len(Lists(job.ID{}, largest)[0].Value); n > directory.ValueMax {
		t.Errorf("a record of the largest pieces has %d bytes", n)
	}
}

func TestKeeper(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNames()
		a, b := somePieces(0, 3), somePieces(2, 3) // one in common
		n.write(Lists(job.ID{1}, a)...)
		k := Open(n)
		defer func() { _ = k.Close() }()
		live := k.Live()
		told := map[chunk.CID]int{}
		k.WatchWants(func(ws []tree.Want) {
			for _, w := range ws {
				told[w.Piece.ID] = w.Copies
			}
		})
		if !live(a[0].ID) || live(b[1].ID) || !k.Lists(a[2].ID) {
			t.Error("what stood in the names is not known")
		}
		more := Lists(job.ID{2}, b)
		n.write(more...)
		synctest.Wait()
		if len(slices.Collect(k.Wants())) != 5 || told[b[2].ID] != Copies || k.Want(b[2].ID) != (tree.Want{Piece: b[2], Copies: Copies}) {
			t.Errorf("%v, %v", told, k.Want(b[2].ID))
		}
		n.write(directory.Change{Key: Lists(job.ID{1}, a)[0].Key, Delete: true})
		synctest.Wait()
		if live(a[0].ID) || !live(a[2].ID) || told[a[0].ID] != 0 || told[a[2].ID] != Copies {
			t.Errorf("%v", told)
		}
		n.write(directory.Change{Key: more[0].Key, Value: []byte("no list")})
		synctest.Wait()
		if live(a[2].ID) || len(slices.Collect(k.Wants())) != 0 {
			t.Error("a record that became nonsense keeps something")
		}
		release := k.Hold(time.Hour, a[0].ID, a[1].ID)
		k.Hold(time.Minute, a[1].ID, a[2].ID)
		if !live(a[0].ID) || !live(a[2].ID) || k.Lists(a[0].ID) {
			t.Error("what is held is not")
		}
		release()
		release()
		if live(a[0].ID) || !live(a[1].ID) {
			t.Error("what was released is held, or what was not is not")
		}
		<-time.After(2 * time.Minute)
		if live(a[1].ID) || live(a[2].ID) {
			t.Error("what is held too long is held")
		}
	})
}

func TestUnion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two := newNames(), newNames()
		a, b := Open(one), Open(two)
		defer func() { _, _ = a.Close(), b.Close() }()
		u := Union(pinning{a}, b)
		told := map[chunk.CID]tree.Want{}
		stop := u.WatchWants(func(ws []tree.Want) {
			for _, w := range ws {
				told[w.Piece.ID] = w
			}
		})
		defer stop()
		p := somePieces(0, 3)
		one.write(Lists(job.ID{1}, p[:2])...)
		two.write(Lists(job.ID{1}, p[1:])...)
		synctest.Wait()
		want := map[chunk.CID]tree.Want{
			p[0].ID: {Piece: p[0], Copies: 3, Pinned: true}, p[1].ID: {Piece: p[1], Copies: 3, Pinned: true}, p[2].ID: {Piece: p[2], Copies: Copies},
		}
		check := func() {
			t.Helper()
			got := map[chunk.CID]tree.Want{}
			for w := range u.Wants() {
				if _, twice := got[w.Piece.ID]; twice {
					t.Errorf("%v twice", w)
				}
				got[w.Piece.ID] = w
			}
			for id, w := range want {
				if told[id] != w || got[id] != w && w.Copies > 0 || u.Live()(id) != (w.Copies > 0) {
					t.Errorf("%v was told, %v is listed, %v is right", told[id], got[id], w)
				}
			}
		}
		check()
		one.write(directory.Change{Key: Lists(job.ID{1}, p[:2])[0].Key, Delete: true})
		synctest.Wait()
		want[p[0].ID] = tree.Want{Piece: p[0]}
		want[p[1].ID] = tree.Want{Piece: p[1], Copies: Copies}
		told[p[0].ID] = tree.Want{Piece: p[0], Copies: told[p[0].ID].Copies} // of what is gone the size does not matter
		check()
	})
}

// pinning wants more than a keeper does, as a tree may.
type pinning struct{ *Keeper }

func (x pinning) Want(id chunk.CID) tree.Want {
	w := x.Keeper.Want(id)
	if w.Copies > 0 {
		w.Copies, w.Pinned = 3, true
	}
	return w
}

func (x pinning) Wants() iter.Seq[tree.Want] {
	return func(yield func(tree.Want) bool) {
		for w := range x.Keeper.Wants() {
			if !yield(x.Want(w.Piece.ID)) {
				return
			}
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(Lists(job.ID{}, somePieces(0, 5))[0].Value)
	f.Fuzz(func(t *testing.T, raw []byte) {
		list, err := Decode(raw)
		if err != nil || len(list) == 0 {
			return
		}
		again, err := Decode(encode(list))
		if err != nil || !slices.Equal(again, list) {
			t.Errorf("%v became %v, %v", list, again, err)
		}
	})
}
