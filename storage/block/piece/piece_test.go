package piece

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/shoal-os/shoal/storage/chunk"
)

const testQuota = 64 << 20

// clock is a time that tests move.
type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

func newClock() *clock { return &clock{time.Unix(1_900_000_000, 0)} }

func mustOpen(t testing.TB, cfg Config) *Store {
	t.Helper()
	if cfg.Quota == 0 {
		cfg.Quota = testQuota
	}
	if cfg.Log == nil {
		cfg.Log = discard()
	}
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// noise gives bytes that follow from a seed.
func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	var key [32]byte
	key[0], key[1], key[2] = byte(seed), byte(seed>>8), byte(seed>>16)
	_, _ = rand.NewChaCha8(key).Read(b)
	return b
}

// dag is the root that a file must have, by chunk.FileDAG over all its leaves.
func dag(data []byte) chunk.CID {
	var leaves []chunk.CID
	for from := 0; from < len(data); from += chunk.LeafSize {
		leaves = append(leaves, chunk.SumRaw(data[from:min(from+chunk.LeafSize, len(data))]))
	}
	root, _ := chunk.FileDAG(leaves, int64(len(data)))
	return root.CID
}

// put adds and commits one file.
func put(t testing.TB, s *Store, data []byte) File {
	t.Helper()
	b := s.NewBatch()
	defer b.Close()
	f, err := b.Add(context.Background(), bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Commit(); err != nil {
		t.Fatal(err)
	}
	return f
}

// read gives all bytes of a file.
func read(s *Store, f File) ([]byte, error) {
	var out []byte
	for _, p := range f.Pieces {
		if p.Small() {
			var err error
			if out, err = s.ReadSmall(p.ID, out); err != nil {
				return nil, err
			}
			continue
		}
		x, err := s.OpenLarge(p.ID)
		if err != nil {
			return nil, err
		}
		data, err := io.ReadAll(io.NewSectionReader(x, 0, x.Size()))
		if err = errors.Join(err, x.Close()); err != nil {
			return nil, err
		}
		out = append(out, data...)
	}
	return out, nil
}

func mustRead(t testing.TB, s *Store, f File, want []byte) {
	t.Helper()
	got, err := read(s, f)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("%d bytes read differ from the %d written", len(got), len(want))
	}
}

func TestAddAndRead(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, Config{Dir: dir})
	sizes := []int{0, 1, 1000, SmallMax - 1, SmallMax, SmallMax + 1, 2 * SmallMax, 3*SmallMax + 77, 9 * SmallMax}
	var files []File
	for i, n := range sizes {
		data := noise(uint64(i), n)
		f := put(t, s, data)
		if f.Root != dag(data) || f.Size != int64(n) {
			t.Fatalf("%d bytes: root %s, want %s", n, f.Root, dag(data))
		}
		if want := min(n, 1); len(f.Pieces) != want {
			t.Fatalf("%d bytes: %d pieces", n, len(f.Pieces))
		}
		if n > 0 && (f.Pieces[0].ID != f.Root || f.Pieces[0].Small() != (n <= SmallMax)) {
			t.Fatalf("%d bytes: pieces %v", n, f.Pieces)
		}
		files = append(files, f)
	}
	check := func() {
		for i, n := range sizes {
			mustRead(t, s, files[i], noise(uint64(i), n))
			for _, p := range files[i].Pieces {
				if got, ok := s.Get(p.ID); !ok || got != p {
					t.Fatalf("%v: %v, %v", p, got, ok)
				}
				if err := s.Verify(context.Background(), p.ID); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	check()
	checkUsage(t, s, dir)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, Config{Dir: dir})
	check()
	checkUsage(t, s, dir)
}

// onDisk is what a folder takes: its files, in blocks.
func onDisk(t testing.TB, dir string) (n int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if d.IsDir() {
			n += blockSize
		} else if err == nil {
			n += roundUp(fi.Size())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// checkUsage compares what the store counts with its folder and its index.
func checkUsage(t testing.TB, s *Store, dir string) {
	t.Helper()
	s.mu.Lock()
	used := s.used()
	s.mu.Unlock()
	if dir != "" {
		if real := onDisk(t, dir); real > used {
			t.Fatalf("the store counts %d bytes and takes %d", used, real)
		}
	}
	checkSums(t, s)
}

// checkSums counts everything anew.
func checkSums(t testing.TB, s *Store) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	var want sums
	live := map[uint32]int64{}
	for id, l := range s.index.all() {
		cost := costOf(id, l)
		switch a, away := s.aside[id]; {
		case !away:
			want.held += cost
			want.pieces++
		case a.why == damaged:
			want.damaged += cost
		default:
			want.quarantined += cost
		}
		if !id.IsRaw() {
			want.large += roundUp(int64(l.size))
		}
		live[l.at.Pack] += costOf(chunk.CID{Codec: chunk.Raw}, l)
	}
	for _, n := range s.partial {
		want.partial += n
	}
	if len(s.locks) == 0 && s.sums.reserved != 0 {
		t.Fatalf("%d bytes are reserved for nothing", s.sums.reserved)
	}
	want.reserved = s.sums.reserved
	if s.sums != want {
		t.Fatalf("sums are %+v, should be %+v", s.sums, want)
	}
	if fmt.Sprint(live) != fmt.Sprint(s.live) {
		t.Fatalf("live bytes are %v, should be %v", s.live, live)
	}
	for id := range s.aside {
		if !s.index.has(id) {
			t.Fatalf("%s is aside and not here", id)
		}
	}
}

// zeros reads as n zeros.
type zeros struct{ n int64 }

func (z *zeros) Read(p []byte) (int, error) {
	if z.n == 0 {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), z.n))
	clear(p[:n])
	z.n -= int64(n)
	return n, nil
}

func TestMoreThanAPiece(t *testing.T) {
	for _, size := range []int64{2 * PieceMax, PieceMax + 1, PieceMax + SmallMax + 1} {
		dir := t.TempDir()
		s := mustOpen(t, Config{Dir: dir, Quota: 4 << 30})
		b := s.NewBatch()
		f, err := b.Add(context.Background(), &zeros{size})
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Commit(); err != nil {
			t.Fatal(err)
		}
		b.Close()
		if want := zerosRoot(size); f.Root != want || f.Size != size {
			t.Fatalf("%d bytes: root %s, want %s", size, f.Root, want)
		}
		left, n := size, 0
		for _, p := range f.Pieces {
			if p.Size > PieceMax || p.Size != min(left, PieceMax) || !s.Has(p.ID) {
				t.Fatalf("%d bytes: piece %v with %d left", size, p, left)
			}
			left -= p.Size
			n++
		}
		if left != 0 || n != 2 {
			t.Fatalf("%d bytes: pieces %v", size, f.Pieces)
		}
		if u := s.Usage(); size == 2*PieceMax && (u.Pieces != 1 || u.Held > PieceMax+1<<20) {
			t.Fatalf("%d bytes: equal pieces are not shared: %+v", size, u)
		}
		checkUsage(t, s, dir)
	}
}

func zerosRoot(size int64) chunk.CID {
	leaves := make([]chunk.CID, (size+chunk.LeafSize-1)/chunk.LeafSize)
	for i := range leaves {
		leaves[i] = zeroLeaf()
	}
	if n := size % chunk.LeafSize; n > 0 {
		leaves[len(leaves)-1] = chunk.SumRaw(make([]byte, n))
	}
	root, _ := chunk.FileDAG(leaves, size)
	return root.CID
}

func TestTheSameAgain(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, Config{Dir: dir})
	data := noise(1, 3*SmallMax)
	put(t, s, data)
	put(t, s, data[:1000])
	before := s.Usage()
	put(t, s, data)
	put(t, s, data[:1000])
	b := s.NewBatch()
	for range 3 { // in one batch
		if _, err := b.Add(context.Background(), bytes.NewReader(noise(2, 5000))); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Add(context.Background(), bytes.NewReader(noise(3, 2*SmallMax))); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Commit(); err != nil {
		t.Fatal(err)
	}
	b.Close()
	after := s.Usage()
	if after.Pieces != before.Pieces+2 || after.Held-before.Held > 2*SmallMax+5000+8192 || after.Waste > before.Waste+blockSize {
		t.Fatalf("%+v, then %+v", before, after)
	}
	checkUsage(t, s, dir)
}

func TestUncommittedIsNotHeld(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, Config{Dir: dir})
	b := s.NewBatch()
	small, err := b.Add(context.Background(), bytes.NewReader(noise(1, 5000)))
	if err != nil {
		t.Fatal(err)
	}
	large, err := b.Add(context.Background(), bytes.NewReader(noise(2, 3*SmallMax)))
	if err != nil {
		t.Fatal(err)
	}
	if s.Has(small.Root) || s.Has(large.Root) {
		t.Fatal("held before Commit")
	}
	b.Close()
	b.Close()
	if err := b.AddSmall(small.Root, noise(1, 5000)); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	if err := b.Commit(); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	if s.Has(small.Root) || s.Has(large.Root) {
		t.Fatal("held without Commit")
	}
	checkUsage(t, s, dir)
	if files, _ := os.ReadDir(filepath.Join(dir, largeDir)); len(files) != 0 {
		t.Fatal(files)
	}
}

func TestAddSmallVerifies(t *testing.T) {
	s := mustOpen(t, Config{Dir: t.TempDir()})
	b := s.NewBatch()
	defer b.Close()
	data := noise(1, 100)
	node, _ := chunk.FileDAG([]chunk.CID{{Codec: chunk.Raw}, {Codec: chunk.Raw}}, 2*SmallMax)
	for _, x := range []struct {
		id   chunk.CID
		data []byte
	}{{chunk.SumRaw(data), data[1:]}, {chunk.SumRaw(nil), nil}, {node.CID, data}, {chunk.CID{}, data},
		{chunk.SumRaw(make([]byte, SmallMax+1)), make([]byte, SmallMax+1)}} {
		if err := b.AddSmall(x.id, x.data); !errors.Is(err, ErrNotPiece) {
			t.Fatalf("%s: %v", x.id, err)
		}
		if err := s.Cache(x.id, x.data); !errors.Is(err, ErrNotPiece) {
			t.Fatalf("%s: %v", x.id, err)
		}
	}
}

func TestReadersErrors(t *testing.T) {
	s := mustOpen(t, Config{Dir: t.TempDir()})
	b := s.NewBatch()
	broken := errors.New("broken")
	for _, n := range []int{10, 3 * SmallMax} {
		r := io.MultiReader(bytes.NewReader(noise(1, n)), errReader{broken})
		if _, err := b.Add(context.Background(), r); !errors.Is(err, broken) {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := b.Add(ctx, bytes.NewReader(noise(1, 10))); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	b.Close()
	checkUsage(t, s, s.dir)
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

func TestHash(t *testing.T) {
	s := mustOpen(t, Config{Dir: t.TempDir()})
	nonce := []byte("nonce")
	for _, n := range []int{5000, 3*SmallMax + 5} {
		data := noise(1, n)
		f := put(t, s, data)
		for _, r := range [][2]int{{0, n}, {0, 0}, {n, 0}, {1, n - 1}, {n / 2, 100}, {n - 1, 1}} {
			sum, err := s.Hash(f.Root, nonce, int64(r[0]), int64(r[1]))
			want := chunk.SumRaw(append(bytes.Clone(nonce), data[r[0]:r[0]+r[1]]...)).Sum
			if err != nil || sum != want {
				t.Fatalf("%v: %x, %v", r, sum, err)
			}
		}
		for _, r := range [][2]int64{{-1, 1}, {0, -1}, {0, int64(n) + 1}, {int64(n) + 1, 0}, {1 << 62, 1 << 62}} {
			if _, err := s.Hash(f.Root, nonce, r[0], r[1]); err == nil {
				t.Fatalf("%v: no error", r)
			}
		}
	}
	if _, err := s.Hash(chunk.SumRaw([]byte("x")), nonce, 0, 1); !errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
}
