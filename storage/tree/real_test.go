package tree

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/storage/block/piece"
	"github.com/shoal-os/shoal/storage/directory"
)

// alone is a pool in which there is nobody else.
type alone struct{}

func (alone) Wrote(peer.ID, time.Time) error            { return nil }
func (alone) Handle(protocol.ID, network.StreamHandler) {}
func (alone) NewStream(context.Context, peer.ID, protocol.ID) (network.Stream, error) {
	return nil, network.ErrNoConn
}
func (alone) Connected() []peer.ID                  { return nil }
func (alone) OnConnected(func(peer.ID)) func()      { return func() {} }
func (alone) Publish(context.Context, []byte) error { return nil }
func (alone) Next(ctx context.Context) (peer.ID, []byte, error) {
	<-ctx.Done()
	return "", nil, ctx.Err()
}

// ownBytes is what storage/repair is to a tree, of a peer without others.
type ownBytes struct{ *piece.Store }

func (b ownBytes) NewBatch() Batch                { return b.Store.NewBatch() }
func (ownBytes) Safety([]piece.Piece, int) Safety { return Safety{Copies: 1, Online: 1} }
func (b ownBytes) Open(_ context.Context, f piece.File) (Reader, error) {
	return ownReader{b.Store, f.Pieces}, nil
}
func (ownBytes) Secure(context.Context, []piece.Piece, int, int, func(int, int)) (Secured, error) {
	return Secured{1}, nil
}

// ownReader reads a file over its pieces.
type ownReader struct {
	store  *piece.Store
	pieces []piece.Piece
}

func (ownReader) Close() error { return nil }

func (r ownReader) ReadAt(b []byte, off int64) (int, error) {
	p := r.pieces[0] // the tests have no file of more than a GiB
	if p.Small() {
		data, err := r.store.ReadSmall(p.ID, nil)
		if err != nil {
			return 0, err
		}
		return copy(b, data[off:]), nil
	}
	x, err := r.store.OpenLarge(p.ID)
	if err != nil {
		return 0, err
	}
	defer x.Close()
	return x.ReadAt(b, off)
}

// real is a tree over a directory and a store of pieces on the disk.
type real struct {
	*Tree
	names *directory.Directory
	store *piece.Store
	later time.Duration // how far the store's clock is ahead
}

func openReal(dir string, later time.Duration) (*real, error) {
	key, err := crypto.UnmarshalEd25519PrivateKey(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
	if err != nil {
		return nil, err
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return nil, err
	}
	r := &real{later: later}
	if r.names, err = directory.Open(directory.Config{
		Dir: filepath.Join(dir, "names"), Self: ident.Identity{Key: key, ID: id, Name: "alone"}, Pool: [32]byte{1},
		Members: alone{}, Streams: alone{}, Presence: alone{}, News: alone{},
	}); err != nil {
		return nil, err
	}
	if r.store, err = piece.Open(piece.Config{
		Dir: filepath.Join(dir, "pieces"), Quota: 1 << 30, Log: slog.New(slog.DiscardHandler),
		Now: func() time.Time { return time.Now().Add(r.later) },
	}); err != nil {
		return nil, err
	}
	r.Tree, err = Open(Config{Self: id, Name: "alone", Names: r.names, Bytes: ownBytes{r.store}})
	return r, err
}

func (r *real) close(t testing.TB) {
	must(t, r.Close())
	must(t, r.names.Close())
	must(t, r.store.Close())
}

// sizes are of the files that the killed peer writes: small pieces, and a large one.
var sizes = []int{0, 1, 5000, 1 << 20, 1<<20 + 1, 3 << 20, 70_000, 12}

// contents is what file i has in a generation.
func contents(i, generation int) []byte {
	out := make([]byte, sizes[i])
	_, _ = rand.NewChaCha8([32]byte{byte(i), byte(generation), byte(generation >> 8)}).Read(out)
	if len(out) >= 8 {
		binary.BigEndian.PutUint64(out, uint64(generation))
	}
	return out
}

// writeGeneration puts all files of one generation, the even ones together and the odd ones each by itself.
func writeGeneration(x *Tree, generation int) error {
	p := x.NewPut(PutOptions{})
	defer p.Abort()
	for i := 0; i < len(sizes); i += 2 {
		if err := p.File(ctx, fmt.Sprint("/put/", i), 0, birth, bytes.NewReader(contents(i, generation))); err != nil {
			return err
		}
	}
	if _, err := p.Commit(ctx); err != nil {
		return err
	}
	for i := 1; i < len(sizes); i += 2 {
		w, err := x.Create(ctx, fmt.Sprint("/put/", i), CreateOptions{})
		if err != nil {
			return err
		}
		if _, err := w.Write(contents(i, generation)); err != nil {
			return err
		}
		if err := w.Close(); err != nil {
			return err
		}
	}
	return nil
}

// childDir is the variable by which the test binary is told to be the peer that is killed.
const childDir = "SHOAL_TREE_TEST_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		if err := beKilled(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// beKilled writes generation after generation, and says on stdout which ones are acknowledged.
func beKilled(dir string) error {
	r, err := openReal(dir, 0)
	if err != nil {
		return err
	}
	if _, err := r.Stat("/put"); err != nil {
		if err := r.Mkdir(ctx, "/put", MkdirOptions{}); err != nil {
			return err
		}
	}
	first := 0
	if _, err := fmt.Sscan(os.Getenv(childDir+"_FIRST"), &first); err != nil {
		return err
	}
	for generation := first; ; generation++ {
		if err := writeGeneration(r.Tree, generation); err != nil {
			return err
		}
		fmt.Println(generation)
	}
}

// TestKilled kills a peer that writes, with SIGKILL, again and again. Each time its disk must have, of every file, the
// generation that was acknowledged or the one after it, whole; and once the collector went over it nothing else.
func TestKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts processes")
	}
	dir, acked := t.TempDir(), -1
	rng := rand.New(rand.NewPCG(1, 2))
	for round := range 4 {
		acked = killOnce(t, dir, acked, rng.IntN(12)+1, time.Duration(rng.IntN(30))*time.Millisecond)
		checkKilled(t, dir, round, acked)
	}
}

// killOnce has a child write until it acknowledged some generations and a while more went by. It returns the last one
// that it acknowledged.
func killOnce(t *testing.T, dir string, acked, count int, more time.Duration) int {
	exe, err := os.Executable()
	must(t, err)
	c := exec.Command(exe)
	c.Env = append(os.Environ(), childDir+"="+dir, fmt.Sprint(childDir, "_FIRST=", acked+1))
	var stderr strings.Builder
	c.Stderr = &stderr
	out, err := c.StdoutPipe()
	must(t, err)
	must(t, c.Start())
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if _, err := fmt.Sscan(lines.Text(), &acked); err != nil {
			t.Errorf("%q: %v", lines.Text(), err)
		}
		if count--; count == 0 {
			time.AfterFunc(more, func() { _ = c.Process.Kill() })
		}
	}
	_ = c.Wait() // it was killed
	if stderr.Len() > 0 {
		t.Fatal(stderr.String())
	}
	return acked
}

func checkKilled(t *testing.T, dir string, round, acked int) {
	r, err := openReal(dir, 0)
	must(t, err)
	defer r.close(t)
	for i := range sizes {
		f, err := r.OpenRead(ctx, fmt.Sprint("/put/", i))
		must(t, err)
		got, err := io.ReadAll(f)
		must(t, err)
		must(t, f.Close())
		if !bytes.Equal(got, contents(i, acked)) && !bytes.Equal(got, contents(i, acked+1)) {
			t.Errorf("round %d: file %d is of neither generation %d nor the next", round, i, acked)
		}
	}
	if u, err := r.Usage("/"); err != nil || u.Files != len(sizes) || u.Conflicts != 0 {
		t.Errorf("round %d: there is %+v, %v", round, u, err)
	}
	r.later = 2 * time.Minute
	_, err = r.store.Collect(r.Live())
	must(t, err)
	live := r.Live()
	for p := range r.store.All() {
		if !live(p.ID) {
			t.Errorf("round %d: %v is an orphan", round, p.ID)
		}
	}
	for w := range r.Wants() {
		if !r.store.Has(w.Piece.ID) {
			t.Errorf("round %d: %v of some version is gone", round, w.Piece.ID)
		}
	}
}
