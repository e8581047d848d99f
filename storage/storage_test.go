package storage

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/shoal-os/shoal/dht/host"
	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/exchange"
)

// testPeer is a host and a storage on loopback.
type testPeer struct {
	*Storage
	host *host.Host
}

func newPeer(t testing.TB) *testPeer {
	t.Helper()
	return startPeer(t, t.TempDir(), nil)
}

// startPeer starts a peer with its home at a path; change may alter its config.
func startPeer(t testing.TB, home string, change func(*Config)) *testPeer {
	t.Helper()
	id, err := ident.LoadOrCreate(home, "test")
	if err != nil {
		t.Fatal(err)
	}
	h, err := host.New(host.Config{Identity: id, Listen: []string{"/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"}})
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Dir: filepath.Join(home, "store"), Host: h}
	if change != nil {
		change(&cfg)
	}
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(s.Close(), h.Close()); err != nil {
			t.Error(err)
		}
	})
	return &testPeer{s, h}
}

// link makes a link to a share at this peer.
func (p *testPeer) link(t testing.TB, sh Share) chunk.Link {
	t.Helper()
	l := chunk.Link{Root: sh.Root, Name: sh.Name, Size: sh.Size}
	addrs, err := peer.AddrInfoToP2pAddrs(&peer.AddrInfo{ID: p.host.ID(), Addrs: p.host.Addrs()})
	if err != nil {
		t.Fatal(err)
	}
	l.Addrs = append([]multiaddr.Multiaddr(nil), addrs...)
	return l
}

// randomBytes is n reproducible bytes.
func randomBytes(seed uint64, n int) []byte {
	out := make([]byte, n)
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	_, _ = rand.NewChaCha8(key).Read(out)
	return out
}

func write(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// sameTree fails unless a and b hold the same names, kinds, targets and bytes.
func sameTree(t testing.TB, a, b string) {
	t.Helper()
	left, right := listing(t, a), listing(t, b)
	for p, x := range left {
		y, ok := right[p]
		if !ok {
			t.Errorf("%s is missing in %s", p, b)
		} else if !bytes.Equal(x, y) {
			t.Errorf("%s differs", p)
		}
	}
	for p := range right {
		if _, ok := left[p]; !ok {
			t.Errorf("%s is too much in %s", p, b)
		}
	}
}

func listing(t testing.TB, root string) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, p)
		switch {
		case d.IsDir():
			out[rel+"/"] = nil
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(p)
			out[rel+"@"] = []byte(target)
			return err
		default:
			data, err := os.ReadFile(p)
			out[rel] = data
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// mixedFolder makes a folder with everything awkward in it.
func mixedFolder(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "mixed")
	write(t, filepath.Join(dir, "big.bin"), randomBytes(1, 5<<20+7))
	write(t, filepath.Join(dir, "exact.bin"), randomBytes(2, 1<<20))
	write(t, filepath.Join(dir, "empty"), nil)
	write(t, filepath.Join(dir, "with space", "emoji 🐟.txt"), []byte("fish"))
	write(t, filepath.Join(dir, "rtl", "שלום.txt"), []byte("peace"))
	write(t, filepath.Join(dir, ".hidden"), []byte("h"))
	write(t, filepath.Join(dir, "twin of big"), randomBytes(1, 5<<20+7))
	if err := os.MkdirAll(filepath.Join(dir, "hollow", "deep"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"link": "big.bin", "out": "../../etc/passwd", "dangling": "nowhere"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	sparse, err := os.Create(filepath.Join(dir, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(sparse.Truncate(20<<20), sparse.Close()); err != nil {
		t.Fatal(err)
	}
	for i := range 200 {
		write(t, filepath.Join(dir, "many", "f"+strings.Repeat("x", i%7)+string(rune('a'+i%26))+string(rune('0'+i/26))), randomBytes(uint64(100+i), 40+i))
	}
	return dir
}

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func TestShareGetFolder(t *testing.T) {
	a, b := newPeer(t), newPeer(t)
	dir := mixedFolder(t)
	ctx := testContext(t)
	sh, err := a.Share(ctx, dir, ShareOptions{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "out")
	res, err := b.Get(ctx, a.link(t, sh), GetOptions{Dest: out}, nil)
	if err != nil {
		t.Fatal(err)
	}
	sameTree(t, dir, out)
	// The twin of the big file and all but one chunk of the sparse one are not fetched.
	if limit := int64(8 << 20); res.Fetched > limit {
		t.Errorf("fetched %d bytes, want at most %d", res.Fetched, limit)
	}
	if exists(out + ".shoal-partial") {
		t.Error("the partial is still there")
	}

	t.Run("again is success and fetches nothing", func(t *testing.T) {
		res, err := b.Get(ctx, a.link(t, sh), GetOptions{Dest: out}, nil)
		if err != nil || res.Fetched != 0 {
			t.Fatalf("fetched %d, %v", res.Fetched, err)
		}
	})
	t.Run("a third peer gets it from the second", func(t *testing.T) {
		c := newPeer(t)
		out := filepath.Join(t.TempDir(), "out")
		if _, err := c.Get(ctx, b.link(t, sh), GetOptions{Dest: out}, nil); err != nil {
			t.Fatal(err)
		}
		sameTree(t, dir, out)
	})
}

func TestShareGetSingleFiles(t *testing.T) {
	a, b := newPeer(t), newPeer(t)
	ctx := testContext(t)
	for name, data := range map[string][]byte{
		"empty": nil, "one": {1}, "small": randomBytes(3, 1000), "chunk": randomBytes(4, 1<<20), "large": randomBytes(5, 3<<20+1),
	} {
		t.Run(name, func(t *testing.T) {
			src := filepath.Join(t.TempDir(), name)
			write(t, src, data)
			sh, err := a.Share(ctx, src, ShareOptions{}, nil)
			if err != nil {
				t.Fatal(err)
			}
			out := filepath.Join(t.TempDir(), "out")
			if _, err := b.Get(ctx, a.link(t, sh), GetOptions{Dest: out}, nil); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(out)
			if err != nil || !bytes.Equal(got, data) {
				t.Fatalf("%d bytes, %v", len(got), err)
			}
		})
	}
}

func TestGetRefusesWhatStandsThere(t *testing.T) {
	a, b := newPeer(t), newPeer(t)
	ctx := testContext(t)
	src := filepath.Join(t.TempDir(), "f")
	write(t, src, randomBytes(6, 3<<20))
	sh, err := a.Share(ctx, src, ShareOptions{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "out")
	write(t, out, []byte("mine"))
	if _, err := b.Get(ctx, a.link(t, sh), GetOptions{Dest: out}, nil); !errors.Is(err, ErrExists) {
		t.Fatalf("err = %v", err)
	}
	if got, _ := os.ReadFile(out); string(got) != "mine" {
		t.Fatalf("what stood there is now %q", got)
	}
	if _, err := b.Get(ctx, a.link(t, sh), GetOptions{Dest: out, Force: true}, nil); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(out); !bytes.Equal(got, randomBytes(6, 3<<20)) {
		t.Fatal("not replaced")
	}
}

func TestGetUnknownSaysWhatWasTried(t *testing.T) {
	a, b := newPeer(t), newPeer(t)
	l := a.link(t, Share{Root: chunk.SumRaw([]byte("nobody has this"))})
	_, err := b.Get(testContext(t), l, GetOptions{Dest: filepath.Join(t.TempDir(), "x"), Timeout: time.Second}, nil)
	var none *exchange.NoProviderError
	if !errors.As(err, &none) || len(none.Tried) != 1 || !strings.Contains(err.Error(), "not held here") {
		t.Fatalf("err = %v", err)
	}
}
