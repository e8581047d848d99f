package exchange

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht"
	"github.com/shoal-os/shoal/dht/host"
	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/storage/block"
	"github.com/shoal-os/shoal/storage/chunk"
)

// TestMain lets more tests run side by side than there are cores: most of them
// wait for somebody to be given up.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "16"); err != nil {
		panic(err)
	}
	code := m.Run()
	// Whatever the tests did, nothing outlives its swarm.
	for deadline := time.Now().Add(10 * time.Second); len(ours()) > 0; runtime.Gosched() {
		if time.Now().After(deadline) {
			fmt.Printf("FAIL: goroutines left over:\n%s\n", strings.Join(ours(), "\n\n"))
			os.Exit(1)
		}
	}
	os.Exit(code)
}

// sample is a root with its bytes.
type sample struct {
	root   chunk.CID
	tree   *chunk.Tree
	nodes  [][]byte
	leaves [][]byte
	files  map[string][]byte // by path; "" for a single file
}

// makeSample builds a folder of files, or of folders of files, or a single file
// named "".
func makeSample(t testing.TB, files map[string][]byte) *sample {
	t.Helper()
	s := &sample{files: files}
	blocks, leaves := map[chunk.CID][]byte{}, map[chunk.CID][]byte{}
	keep := func(nodes []chunk.Block) {
		for _, n := range nodes {
			blocks[n.CID] = n.Data
		}
	}
	file := func(data []byte) chunk.Child {
		var cids []chunk.CID
		for part := range slices.Chunk(data, chunk.LeafSize) {
			c := chunk.SumRaw(part)
			cids, leaves[c] = append(cids, c), part
		}
		c, nodes := chunk.FileDAG(cids, int64(len(data)))
		keep(nodes)
		return c
	}
	dir := func(children []chunk.Child) chunk.Child {
		c, nodes, err := chunk.DirDAG(children)
		if err != nil {
			t.Fatal(err)
		}
		keep(nodes)
		return c
	}
	if data, ok := files[""]; ok {
		s.root = file(data).CID
	} else {
		dirs := map[string][]chunk.Child{}
		for path, data := range files {
			d, name, ok := strings.Cut(path, "/")
			if !ok {
				d, name = "", path
			}
			c := file(data)
			c.Name = name
			dirs[d] = append(dirs[d], c)
		}
		top := dirs[""]
		delete(dirs, "")
		for name, children := range dirs {
			c := dir(children)
			c.Name = name
			top = append(top, c)
		}
		s.root = dir(top).CID
	}
	w := chunk.NewWalker(s.root, chunk.Limits{})
	for c, more := w.Next(); more; c, more = w.Next() {
		if err := w.Add(blocks[c]); err != nil {
			t.Fatal(err)
		}
		s.nodes = append(s.nodes, blocks[c])
	}
	var err error
	if s.tree, err = w.Tree(); err != nil {
		t.Fatal(err)
	}
	for _, l := range s.tree.Leaves {
		s.leaves = append(s.leaves, leaves[l.CID])
	}
	return s
}

func noise(seed uint64, n int) []byte {
	out := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(out)
	return out
}

// folderSample has a file of several leaves, many small ones and a subfolder.
func folderSample(t testing.TB) *sample {
	files := map[string][]byte{"big": noise(1, 2<<20+77)}
	for i := range 40 {
		files[fmt.Sprintf("small%d", i)] = noise(uint64(10+i), 100+i)
		files[fmt.Sprintf("sub/f%d", i)] = noise(uint64(100+i), 3000+i)
	}
	return makeSample(t, files)
}

// share puts the sample's files into dir and indexes them in st.
func (s *sample) share(t testing.TB, st *block.Store) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "shared")
	x := block.Index{Root: s.root, Name: "sample", Path: dir, Nodes: s.nodes}
	for path, data := range s.files {
		p := filepath.Join(dir, filepath.FromSlash(path))
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, data, 0o644)); err != nil {
			t.Fatal(err)
		}
		x.Size += int64(len(data))
	}
	for _, e := range s.tree.Entries {
		if e.Kind == chunk.File {
			fi, err := os.Stat(filepath.Join(dir, filepath.FromSlash(e.Path)))
			if err != nil {
				t.Fatal(err)
			}
			x.Mtimes = append(x.Mtimes, fi.ModTime().UnixNano())
		}
	}
	if _, err := st.AddIndexed(x); err != nil {
		t.Fatal(err)
	}
}

// check fails unless the finished files at path are the sample's.
func (s *sample) check(t testing.TB, path string) {
	t.Helper()
	for rel, want := range s.files {
		got, err := os.ReadFile(filepath.Join(path, filepath.FromSlash(rel)))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v", cmp.Or(rel, "the file"), len(got), err)
		}
	}
}

// newHost is a peer on loopback without a swarm.
func newHost(t testing.TB) *host.Host {
	t.Helper()
	id, err := ident.LoadOrCreate(t.TempDir(), "test")
	if err != nil {
		t.Fatal(err)
	}
	h, err := host.New(host.Config{Identity: id, Listen: []string{"/ip4/127.0.0.1/tcp/0"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

// node is a host with a store and a swarm.
type node struct {
	*Swarm
	host  Host
	store *block.Store
}

func newNode(t testing.TB, change ...func(*Config)) *node {
	t.Helper()
	return startNode(t, newHost(t), change...)
}

func startNode(t testing.TB, h Host, change ...func(*Config)) *node {
	t.Helper()
	n := &node{host: h}
	var err error
	if n.store, err = block.Open(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	cfg := Config{Host: n.host, Store: n.store}
	for _, f := range change {
		f(&cfg)
	}
	n.Swarm = New(cfg)
	t.Cleanup(func() {
		n.Swarm.Close()
		n.store.Close()
	})
	return n
}

func infoOf(h Host) peer.AddrInfo {
	if _, ok := h.(*memHost); ok {
		return peer.AddrInfo{ID: h.ID()}
	}
	return peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()}
}

// get fetches s to a fresh path and finishes it.
func (n *node) get(ctx context.Context, t testing.TB, s *sample, timeout time.Duration, from ...peer.AddrInfo) (string, Report, error) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out")
	var root *block.Root
	rep, err := n.Fetch(ctx, Job{
		Root: s.root, From: from, Timeout: timeout,
		Begin: func(_ context.Context, tree *chunk.Tree, nodes [][]byte) (r *block.Root, err error) {
			root, err = n.store.Begin(tree, nodes, "x", out)
			return root, err
		},
	})
	if err == nil {
		err = root.Finish(false)
	}
	return out, rep, err
}

// finder yields its peers a moment after ready is closed.
type finder struct {
	ready chan struct{}
	peers []peer.AddrInfo
}

func (f *finder) FindProviders(ctx context.Context, _ dht.Key) iter.Seq2[peer.AddrInfo, error] {
	return func(yield func(peer.AddrInfo, error) bool) {
		select {
		case <-f.ready:
		case <-ctx.Done():
			return
		}
		select {
		case <-time.After(100 * time.Millisecond): // for what was said before to arrive
		case <-ctx.Done():
			return
		}
		for _, p := range f.peers {
			if !yield(p, nil) {
				return
			}
		}
	}
}

// eventually waits until cond holds, and fails with what it says if it never does.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.After(15 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("never: %s\n%s", what, strings.Join(ours(), "\n\n"))
		}
	}
}

// ours lists the goroutines that run code of this package, tests aside.
func ours() (out []string) {
	buf := make([]byte, 4<<20)
	buf = buf[:runtime.Stack(buf, true)]
	for _, g := range strings.Split(string(buf), "\n\n") {
		if strings.Contains(g, "storage/exchange.(*") && !strings.Contains(g, "_test.go") {
			out = append(out, g)
		}
	}
	return out
}

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestFetch(t *testing.T) {
	a, b := newNode(t), newNode(t)
	for name, s := range map[string]*sample{
		"folder": folderSample(t),
		"file":   makeSample(t, map[string][]byte{"": noise(2, 3<<20+1)}),
		"raw":    makeSample(t, map[string][]byte{"": []byte("raw")}),
		"empty":  makeSample(t, map[string][]byte{"": nil}),
	} {
		t.Run(name, func(t *testing.T) {
			s.share(t, a.store)
			out, rep, err := b.get(testContext(t), t, s, 5*time.Second, infoOf(a.host))
			if err != nil {
				t.Fatal(err)
			}
			s.check(t, out)
			var size int64
			for _, data := range s.files {
				size += int64(len(data))
			}
			if rep.Fetched != size || rep.Wasted != 0 || len(rep.Banned) != 0 {
				t.Errorf("of %d bytes: %+v", size, rep)
			}
		})
	}
}
