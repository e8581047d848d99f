package storage

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/shoal-os/shoal/storage/block"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/exchange"
)

// open opens a link at p and closes it with the test.
func (p *testPeer) open(t testing.TB, link chunk.Link) *Content {
	t.Helper()
	c, err := p.Open(testContext(t), link, OpenOptions{Timeout: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// file opens a file of c by its path.
func (c *Content) file(t testing.TB, path string) *File {
	t.Helper()
	i, err := c.Find(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := c.OpenFile(testContext(t), i)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// shared makes a share of a folder at a fresh peer.
func shared(t testing.TB, files map[string][]byte) (*testPeer, chunk.Link, string) {
	t.Helper()
	p := newPeer(t)
	dir := filepath.Join(t.TempDir(), "dir")
	for name, data := range files {
		write(t, filepath.Join(dir, filepath.FromSlash(name)), data)
	}
	sh, err := p.Share(testContext(t), dir, ShareOptions{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p, p.link(t, sh), dir
}

func readAll(t testing.TB, r io.Reader, want []byte) {
	t.Helper()
	got, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%d bytes, want %d; %v", len(got), len(want), err)
	}
}

// have is how many leaves of a root p holds.
func (p *testPeer) have(root chunk.CID) int {
	if r, ok := p.store.Root(root); ok {
		return r.HaveCount()
	}
	return 0
}

func TestOpenFetchesOnlyWhatIsRead(t *testing.T) {
	small, big := []byte("hello"), randomBytes(1, 40<<20)
	_, link, _ := shared(t, map[string][]byte{"a/small.txt": small, "big.bin": big, "empty": nil})
	p := newPeer(t)
	c := p.open(t, link)
	if n := p.have(link.Root); n != 0 || c.Whole() {
		t.Fatalf("%d leaves here after opening", n)
	}
	readAll(t, c.file(t, "a/small.txt"), small)
	if n := p.have(link.Root); n != 1 {
		t.Fatalf("%d leaves here after reading one", n)
	}
	readAll(t, c.file(t, "empty"), nil)
	f := c.file(t, "big.bin")
	buf := make([]byte, 100)
	if _, err := f.ReadAt(buf, 30<<20-50); err != nil || !bytes.Equal(buf, big[30<<20-50:][:100]) {
		t.Fatalf("in the middle: %v", err)
	}
	f.Close()
	// The 8 MiB ahead may come, the rest may not.
	if n := p.have(link.Root); n < 3 || n > 12 {
		t.Errorf("%d leaves here after reading 100 bytes in the middle", n)
	}
	f = c.file(t, "big.bin")
	if at, err := f.Seek(-10, io.SeekEnd); err != nil || at != int64(len(big))-10 {
		t.Fatal(at, err)
	}
	readAll(t, f, big[len(big)-10:])
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	readAll(t, f, big)
}

func TestOpenEntries(t *testing.T) {
	_, link, _ := shared(t, map[string][]byte{"b/2": {2}, "b/1": {1}, "a": {3}, "b.txt": {4}, "b/deep/x": {5}})
	c := newPeer(t).open(t, link)
	list := func(path string) (names []string) {
		i, err := c.Find(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range c.List(i) {
			names = append(names, e.Path)
		}
		return names
	}
	if got := list(""); !slices.Equal(got, []string{"a", "b", "b.txt"}) {
		t.Error(got)
	}
	if got := list("/b/"); !slices.Equal(got, []string{"b/1", "b/2", "b/deep"}) {
		t.Error(got)
	}
	if _, err := c.Find("b/3"); !errors.Is(err, ErrNoEntry) {
		t.Error(err)
	}
	i, _ := c.Find("b")
	if _, err := c.OpenFile(t.Context(), i); !errors.Is(err, ErrNotFile) {
		t.Error(err)
	}
	if data, err := c.Node(link.Root); err != nil || chunk.SumNode(data) != link.Root {
		t.Errorf("root node: %v", err)
	}
	if _, err := c.Node(chunk.SumNode(nil)); !errors.Is(err, block.ErrNotFound) {
		t.Error(err)
	}
}

func TestOpenOwnShareVerifies(t *testing.T) {
	data := randomBytes(2, 3<<20)
	p, link, dir := shared(t, map[string][]byte{"f": data})
	c := p.open(t, chunk.Link{Root: link.Root})
	if !c.Whole() {
		t.Error("an own share is not whole")
	}
	readAll(t, c.file(t, "f"), data)
	// Bytes that rot without a trace in size or time are not passed on.
	path := filepath.Join(dir, "f")
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	data[5]++
	write(t, path, data)
	if err := os.Chtimes(path, fi.ModTime(), fi.ModTime()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.file(t, "f").Read(make([]byte, 10)); !errors.Is(err, block.ErrChanged) {
		t.Errorf("read of rotten bytes: %v", err)
	}
}

func TestOpenSingleFiles(t *testing.T) {
	a, b := newPeer(t), newPeer(t)
	for name, data := range map[string][]byte{"none": nil, "raw": []byte("one leaf"), "two": randomBytes(3, 1<<20+1)} {
		path := filepath.Join(t.TempDir(), name)
		write(t, path, data)
		sh, err := a.Share(testContext(t), path, ShareOptions{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		c := b.open(t, a.link(t, sh))
		f := c.file(t, "")
		if f.Size() != int64(len(data)) {
			t.Errorf("%s: %d bytes", name, f.Size())
		}
		readAll(t, f, data)
	}
}

func TestOpenRepairsTheCache(t *testing.T) {
	data := randomBytes(4, 3<<20)
	_, link, _ := shared(t, map[string][]byte{"f": data})
	p := newPeer(t)
	c := p.open(t, link)
	readAll(t, c.file(t, "f"), data)
	r, _ := p.store.Root(link.Root)
	path := filepath.Join(r.Info().PartialPath, "f")
	bad := bytes.Clone(data)
	bad[2<<20]++
	write(t, path, bad)
	readAll(t, c.file(t, "f"), data)
}

func TestOpenManyReaders(t *testing.T) {
	data := randomBytes(5, 24<<20)
	_, link, _ := shared(t, map[string][]byte{"f": data, "g": data[:5<<20]})
	p := newPeer(t)
	var wg sync.WaitGroup
	for k := range 6 {
		c := p.open(t, link)
		f := c.file(t, []string{"f", "g"}[k%2])
		wg.Go(func() {
			want := data[:f.Size()]
			from := int64(k) * f.Size() / 6
			if _, err := f.Seek(from, io.SeekStart); err != nil {
				t.Error(err)
			}
			got, err := io.ReadAll(f)
			if err != nil || !bytes.Equal(got, want[from:]) {
				t.Errorf("reader %d: %d bytes, %v", k, len(got), err)
			}
		})
	}
	wg.Wait()
}

func TestGetTakesTheCacheOver(t *testing.T) {
	data := randomBytes(6, 20<<20)
	_, link, dir := shared(t, map[string][]byte{"f": data, "g": []byte("x")})
	p := newPeer(t)
	c := p.open(t, link)
	f := c.file(t, "f")
	if _, err := io.CopyN(io.Discard, f, 4<<20); err != nil {
		t.Fatal(err)
	}
	if s := p.Shares(); len(s) != 1 || s[0].State != Cached {
		t.Fatalf("%+v", s)
	}
	before := p.have(link.Root)
	out := filepath.Join(t.TempDir(), "out")
	res, err := p.Get(testContext(t), link, GetOptions{Dest: out}, nil)
	if err != nil {
		t.Fatal(err)
	}
	sameTree(t, dir, out)
	if limit := int64(len(data)) + 1 - int64(before)<<20; res.Fetched > limit {
		t.Errorf("fetched %d bytes with %d leaves in the cache", res.Fetched, before)
	}
	readAll(t, f, data[4<<20:]) // the reader goes on, from the new place
	if s := p.Shares(); len(s) != 1 || s[0].State != Seeding {
		t.Errorf("%+v", s)
	}
	if left, _ := filepath.Glob(filepath.Join(p.cfg.Cache, "*", "*")); len(left) > 0 {
		t.Errorf("left in the cache: %v", left)
	}
}

// TestReadDuringGet: who reads a root that is being fetched is served first.
func TestReadDuringGet(t *testing.T) {
	data := randomBytes(7, 24<<20)
	_, link, _ := shared(t, map[string][]byte{"f": data})
	p := newPeer(t)
	got := make(chan error, 1)
	begun := make(chan struct{})
	var once sync.Once
	go func() {
		_, err := p.Get(testContext(t), link, GetOptions{Dest: filepath.Join(t.TempDir(), "out")}, func(Progress) {
			once.Do(func() { close(begun) })
		})
		got <- err
	}()
	<-begun
	c := p.open(t, link)
	readAll(t, c.file(t, "f"), data)
	if err := <-got; err != nil {
		t.Fatal(err)
	}
	readAll(t, c.file(t, "f"), data)
}

func TestOpenGivesUp(t *testing.T) {
	p := newPeer(t)
	_, err := p.Open(t.Context(), chunk.Link{Root: chunk.SumNode([]byte("nobody"))}, OpenOptions{Timeout: 100 * time.Millisecond})
	var none *exchange.NoProviderError
	if !errors.As(err, &none) {
		t.Errorf("err = %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.Open(ctx, chunk.Link{Root: chunk.SumNode([]byte("nobody"))}, OpenOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v", err)
	}
}

// TestReadGivesUpAndGoesOn: a read fails when its provider is gone, and the
// next one looks again.
func TestReadGivesUpAndGoesOn(t *testing.T) {
	data := randomBytes(8, 30<<20)
	a, link, dir := shared(t, map[string][]byte{"f": data})
	p := newPeer(t)
	c, err := p.Open(t.Context(), link, OpenOptions{Timeout: 300 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := a.Unshare(link.Root); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	f := c.file(t, "f")
	var none *exchange.NoProviderError
	if _, err := f.ReadAt(make([]byte, 1), 29<<20); !errors.As(err, &none) {
		t.Fatalf("err = %v", err)
	}
	write(t, filepath.Join(dir, "f"), data)
	if _, err := a.Share(testContext(t), dir, ShareOptions{}, nil); err != nil {
		t.Fatal(err)
	}
	for {
		_, err := f.ReadAt(make([]byte, 1), 29<<20)
		if err == nil {
			break
		}
		if !errors.As(err, &none) {
			t.Fatal(err)
		}
	}
}

func TestCloseEndsReads(t *testing.T) {
	_, link, _ := shared(t, map[string][]byte{"f": randomBytes(9, 2<<20)})
	p := newPeer(t)
	c := p.open(t, link)
	f := c.file(t, "f")
	c.Close()
	c.Close()
	if _, err := io.ReadAll(f); err == nil {
		t.Error("read from a closed content")
	}
	if err := p.Storage.Close(); err != nil {
		t.Error(err)
	}
	if _, err := p.Open(t.Context(), link, OpenOptions{}); !errors.Is(err, ErrClosed) {
		t.Errorf("open of a closed storage: %v", err)
	}
}

func TestCacheIsBounded(t *testing.T) {
	a, link, _ := shared(t, map[string][]byte{"f": randomBytes(10, 3<<20)})
	other := filepath.Join(t.TempDir(), "other")
	write(t, other, randomBytes(11, 3<<20))
	sh, err := a.Share(testContext(t), other, ShareOptions{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	p := newPeer(t)
	p.cfg.CacheMax = 4 << 20
	c := p.open(t, link)
	readAll(t, c.file(t, "f"), randomBytes(10, 3<<20))
	c.Close()
	if p.have(link.Root) != 3 {
		t.Fatalf("%d leaves kept", p.have(link.Root))
	}
	d := p.open(t, a.link(t, sh))
	readAll(t, d.file(t, ""), randomBytes(11, 3<<20))
	d.Close()
	if p.have(link.Root) != 0 || p.have(sh.Root) != 3 {
		t.Errorf("%d leaves of the older root and %d of the newer are kept", p.have(link.Root), p.have(sh.Root))
	}
	if err := p.Unshare(sh.Root); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(p.cfg.Cache); len(left) > 0 {
		t.Errorf("left in the cache: %v", left)
	}
}

func TestSweepRemovesWhatNobodyKnows(t *testing.T) {
	p := newPeer(t)
	lost := filepath.Join(p.cfg.Cache, chunk.SumRaw([]byte("x")).String())
	write(t, filepath.Join(lost, "data.shoal-partial"), []byte("x"))
	write(t, filepath.Join(p.cfg.Cache, "notes.txt"), []byte("mine"))
	p.sweepCache()
	if exists(lost) || !exists(filepath.Join(p.cfg.Cache, "notes.txt")) {
		t.Error("sweeping removed the wrong things")
	}
}
