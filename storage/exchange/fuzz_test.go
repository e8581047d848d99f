package exchange

import (
	"bufio"
	"bytes"
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/shoal-os/shoal/dht/wire"
	"github.com/shoal-os/shoal/storage/block"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/chunk/bitfield"
)

// canned is a stream whose other side says what it has to say at once, and
// takes everything.
type canned struct {
	network.Stream
	mu    sync.Mutex
	said  *bytes.Reader
	reset func()
}

func (c *canned) Conn() network.Conn               { return memConn{remote: "fuzz"} }
func (c *canned) Write(b []byte) (int, error)      { return len(b), nil }
func (c *canned) Close() error                     { return nil }
func (c *canned) CloseRead() error                 { return nil }
func (c *canned) SetDeadline(time.Time) error      { return nil }
func (c *canned) SetReadDeadline(time.Time) error  { return nil }
func (c *canned) SetWriteDeadline(time.Time) error { return nil }
func (c *canned) Reset() error                     { return c.ResetWithError(0) }

func (c *canned) Read(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.said.Read(b)
}

func (c *canned) ResetWithError(network.StreamErrorCode) error {
	if c.reset != nil {
		c.reset()
	}
	return nil
}

// message is the bytes that f writes.
func bytesOf(t testing.TB, f func(w *bytes.Buffer) error) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := f(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// FuzzServe says anything to a server.
func FuzzServe(f *testing.F) {
	s := folderSample(f)
	n := newMemNet().node(f, "server")
	s.share(f, n.store)
	hello := bytesOf(f, func(b *bytes.Buffer) error {
		return wire.WriteMsg(b, &Hello{Root: s.root.Bytes(), Fetching: true}, helloMax)
	})
	ask := appendRuns(nil, frameAsk, []bitfield.Run{{First: 3, Count: 4}, {First: 0, Count: 2}})
	cancel := appendRuns(nil, frameCancel, []bitfield.Run{{First: 1, Count: 4}})
	for _, frames := range [][][]byte{
		{}, {appendHeader(nil, frameTree, 0)}, {ask}, {ask, cancel}, {appendHeader(nil, frameTree, 0), ask, ask, cancel, ask},
	} {
		f.Add(true, bytes.Join(frames, nil))
		f.Add(false, append(bytes.Clone(hello), bytes.Join(frames, nil)...))
	}
	f.Fuzz(func(t *testing.T, greeted bool, said []byte) {
		if len(said) > 4096 {
			return // what is asked for is sent: more bytes only take longer
		}
		if greeted {
			said = append(bytes.Clone(hello), said...)
		}
		u := &upload{swarm: n.Swarm, st: &canned{said: bytes.NewReader(said)}, peer: "fuzz", wake: make(chan struct{}, 1)}
		_ = u.run()
		if k := n.Serving(s.root); k != 0 {
			t.Errorf("%d streams after the end", k)
		}
	})
}

// cannedHost answers every stream with the same.
type cannedHost struct {
	*memHost
	said []byte
	end  func()
}

func (h cannedHost) NewBulkStream(context.Context, peer.ID, ...protocol.ID) (network.Stream, error) {
	return &canned{said: bytes.NewReader(h.said), reset: h.end}, nil
}

// FuzzSession says anything to a downloader. Whatever it is, what is marked as
// verified is right, and a download that ends well has the right bytes.
func FuzzSession(f *testing.F) {
	files := map[string][]byte{"a": []byte("aaaa"), "b": noise(1, 100), "c": nil, "d/e": noise(2, 200), "d/f": []byte("aaaa")}
	folder := makeSample(f, files)
	raw := makeSample(f, map[string][]byte{"": []byte("raw")})
	for _, s := range []*sample{folder, raw} {
		var frames []byte
		for _, n := range s.nodes {
			frames = appendFrame(frames, frameNode, n)
		}
		if s == folder {
			frames = appendHeader(frames, frameTreeEnd, 0)
		}
		var leaves []byte
		for i, l := range s.leaves {
			leaves = appendFrame(leaves, frameLeaf, append([]byte{0, 0, 0, byte(i)}, l...))
		}
		part := bitfield.New(len(s.leaves))
		part.Set(0)
		for _, w := range []*Welcome{
			{Leaves: uint32(len(s.leaves)), Whole: true}, {Leaves: uint32(len(s.leaves)), Have: part.Bytes()}, {Error: 2, Text: "no"},
		} {
			welcome := bytesOf(f, func(b *bytes.Buffer) error { return wire.WriteMsg(b, w, welcomeMax) })
			control := appendRuns(nil, frameHave, []bitfield.Run{{First: 0, Count: 1}})
			control = appendMessage(control, frameGone, &Gone{First: 0, Count: 1, Error: 1, Text: "x"})
			control = appendMessage(control, framePeers, &Peers{Peers: []*Peers_Peer{{Id: []byte("12345678")}}})
			control = appendHeader(appendHeader(control, frameChoke, 0), frameUnchoke, 0)
			f.Add(s == raw, bytes.Join([][]byte{welcome, frames, leaves}, nil))
			f.Add(s == raw, bytes.Join([][]byte{welcome, control, frames, leaves, control}, nil))
			f.Add(s == raw, bytes.Join([][]byte{welcome, frames, control, leaves, leaves}, nil))
		}
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, single bool, said []byte) {
		s := folder
		if single {
			s = raw
		}
		fetchCanned(t, dir, s, said)
	})
}

func fetchCanned(t *testing.T, dir string, s *sample, said []byte) {
	store, err := block.Open(filepath.Join(dir, "store"))
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "out")
	defer os.RemoveAll(dir)
	defer store.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n := New(Config{Host: cannedHost{newMemNet().host("me"), said, cancel}, Store: store})
	defer n.Close()
	var root *block.Root
	_, err = n.Fetch(ctx, Job{
		Root: s.root, From: []peer.AddrInfo{{ID: "fuzz"}},
		Begin: func(_ context.Context, tree *chunk.Tree, nodes [][]byte) (r *block.Root, err error) {
			root, err = store.Begin(tree, nodes, "x", out)
			return root, err
		},
	})
	if err == nil {
		if err := root.Finish(false); err != nil {
			t.Fatal(err)
		}
		s.check(t, out)
	}
	if root == nil {
		return
	}
	rd, err := root.NewReader()
	if err != nil {
		t.Fatal(err)
	}
	defer rd.Close()
	for i := range s.leaves {
		if !root.Has(i) {
			continue
		}
		if got, err := rd.ReadLeaf(i, nil); err != nil || !bytes.Equal(got, s.leaves[i]) {
			t.Fatalf("leaf %d is marked and has %d bytes, %v", i, len(got), err)
		}
	}
}

// FuzzReaders feeds the decoders of single frames.
func FuzzReaders(f *testing.F) {
	f.Add(appendRuns(nil, frameHave, []bitfield.Run{{First: 1, Count: 2}}), uint16(10))
	f.Add(appendMessage(nil, frameGone, &Gone{First: 3, Count: 1}), uint16(4))
	f.Add(appendMessage(nil, framePeers, &Peers{Peers: []*Peers_Peer{{Id: []byte("x"), Addrs: [][]byte{{1}}}}}), uint16(0))
	f.Fuzz(func(t *testing.T, b []byte, leaves uint16) {
		br := bufio.NewReader(bytes.NewReader(b))
		for {
			kind, n, err := readHeader(br, func(t frameType) bool { return t.payloadMax() >= 0 })
			if err != nil {
				return
			}
			if n > kind.payloadMax() {
				t.Fatalf("frame type %d of %d bytes", kind, n)
			}
			runs, err := readRuns(br, n, int(leaves))
			if err != nil {
				return
			}
			for _, r := range runs {
				if r.First < 0 || r.Count <= 0 || r.First+r.Count > int(leaves) {
					t.Fatalf("run %v of %d leaves", r, leaves)
				}
			}
		}
	})
}
