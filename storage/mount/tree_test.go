package mount_test

import (
	"context"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/storage/block/piece"
	"github.com/shoal-os/shoal/storage/directory"
	"github.com/shoal-os/shoal/storage/mount"
	"github.com/shoal-os/shoal/storage/tree"
)

// openTree opens a pool of this one peer: a real directory on disk, and the real tree over a store of bytes.
func openTree(t testing.TB, store tree.Bytes) mount.FS {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(nil)
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	d, err := directory.Open(directory.Config{
		Dir: t.TempDir(), Self: ident.Identity{Key: key, ID: id, Name: "alone"}, Pool: [32]byte{1},
		Members: alone{}, Streams: alone{}, Presence: alone{}, News: alone{},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	names, err := tree.Open(tree.Config{Self: id, Name: "alone", Names: d, Bytes: store})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = names.Close() })
	space := func(context.Context) (mount.Space, error) { return mount.Space{Free: 1 << 40}, nil }
	return mount.Tree(names, mount.TreeOptions{Space: space})
}

// alone is a pool in which there is nobody else.
type alone struct{}

func (alone) Wrote(peer.ID, time.Time) error            { return nil }
func (alone) Handle(protocol.ID, network.StreamHandler) {}
func (alone) NewStream(context.Context, peer.ID, protocol.ID) (network.Stream, error) {
	return nil, network.ErrNoConn
}
func (alone) Connected() []peer.ID                    { return nil }
func (alone) OnConnected(func(peer.ID)) (stop func()) { return func() {} }
func (alone) Publish(context.Context, []byte) error   { return nil }
func (alone) Next(ctx context.Context) (peer.ID, []byte, error) {
	<-ctx.Done()
	return "", nil, ctx.Err()
}

// openPieces opens a store of pieces, with a quota in bytes on disk, that is all there is of them.
func openPieces(t testing.TB, quota int64) *pieceBytes {
	t.Helper()
	s, err := piece.Open(piece.Config{Dir: t.TempDir(), Quota: quota, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return &pieceBytes{s}
}

// pieceBytes is what storage/repair is to a tree, of a peer without others.
type pieceBytes struct{ store *piece.Store }

func (b *pieceBytes) NewBatch() tree.Batch { return b.store.NewBatch() }

func (b *pieceBytes) Safety([]piece.Piece, int) tree.Safety { return tree.Safety{Copies: 1, Online: 1} }

func (b *pieceBytes) Secure(context.Context, []piece.Piece, int, int, func(done, total int)) (tree.Secured, error) {
	return tree.Secured{Copies: 1}, nil
}

func (b *pieceBytes) Open(_ context.Context, f piece.File) (tree.Reader, error) {
	return &pieceReader{b.store, f.Pieces}, nil
}

// pieceReader reads a file over its pieces.
type pieceReader struct {
	store  *piece.Store
	pieces []piece.Piece
}

func (r *pieceReader) Close() error { return nil }

// ReadAt implements io.ReaderAt.
func (r *pieceReader) ReadAt(b []byte, off int64) (n int, err error) {
	for _, p := range r.pieces {
		if off < p.Size {
			m, err := r.readPiece(p, b[n:min(len(b), n+int(p.Size-off))], off)
			if n += m; err != nil || n == len(b) {
				return n, err
			}
			off += int64(m)
		}
		off -= p.Size
	}
	return n, io.EOF
}

func (r *pieceReader) readPiece(p piece.Piece, b []byte, off int64) (int, error) {
	if p.Small() {
		data, err := r.store.ReadSmall(p.ID, nil)
		if err != nil {
			return 0, err
		}
		return copy(b, data[off:]), nil
	}
	large, err := r.store.OpenLarge(p.ID)
	if err != nil {
		return 0, err
	}
	defer large.Close()
	return large.ReadAt(b, off)
}

// TestTreeStatuses: what the real tree and store fail with, as a client hears it.
func TestTreeStatuses(t *testing.T) {
	const quota = 24 << 20
	pieces := openPieces(t, quota)
	c := &client{T: t, face: mount.Handler(openTree(t, pieces), mount.Options{})}
	c.want(201, "MKCOL", "/Photos", "")
	w := c.want(201, "PUT", "/Photos/a.jpg", "picture", "X-OC-Mtime: 1700000000")
	const root = `"bafkrei`
	if tag := w.Header().Get("Etag"); !strings.HasPrefix(tag, root) {
		t.Errorf("its ETag is %s", tag)
	}
	for _, s := range []struct {
		code         int
		method, path string
	}{
		{409, "PUT", "/Photos/A.JPG"}, {409, "MKCOL", "/photos"}, {403, "PUT", "/a%3Ab"}, {403, "PUT", "/nul.txt"}, {403, "PUT", "/end."},
		{403, "PUT", "/a%0Ab"}, {404, "GET", "/a%0Ab"}, {403, "PUT", "/" + strings.Repeat("x", 256)}, {405, "PUT", "/Photos"},
		{409, "PUT", "/none/x"}, {409, "PUT", "/Photos/a.jpg/x"}, {404, "DELETE", "/none"},
	} {
		c.want(s.code, s.method, s.path, "")
	}
	big := iotest.DataErrReader(io.LimitReader(rand.NewChaCha8([32]byte{}), 2*quota))
	if w := c.do("PUT", "/Photos/a.jpg", big); w.Code != http.StatusInsufficientStorage {
		t.Errorf("beyond the quota: %d %s", w.Code, w.Body)
	}
	if got := c.want(200, "GET", "/Photos/a.jpg", "").Body.String(); got != "picture" {
		t.Errorf("it has %.20q", got)
	}
	if used := pieces.store.Usage(); used.Held+used.Reserved > 1<<20 {
		t.Errorf("what failed keeps its room: %+v", used)
	}
}
