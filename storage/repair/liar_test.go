package repair

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	libp2p "github.com/libp2p/go-libp2p/core/network"

	"github.com/shoal-os/shoal/dht/wire"
	"github.com/shoal-os/shoal/storage/block/piece"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/repair/inventory"
	"github.com/shoal-os/shoal/storage/repair/pb"
)

type stream = libp2p.Stream

// claims are what liars say they hold.
var claims sync.Map

// lie answers a Follow with claims, and all else as an honest peer would.
func lie(x *fakeNode, honest libp2p.StreamHandler, s stream) {
	var ask pb.Ask
	if wire.ReadMsg(s, &ask, askMax) != nil {
		return
	}
	ids, _ := claims.Load(x)
	list, _ := ids.([]chunk.CID)
	if ask.GetFollow() == nil || list == nil {
		honest(&replay{Stream: s, ask: &ask})
		return
	}
	_ = wire.WriteMsg(s, &pb.Answer{Delta: &pb.Delta{
		Added: inventory.Append(nil, list...), Usage: &pb.Usage{Held: 1, Free: 1 << 30},
	}}, answerMax)
	var b [1]byte
	_, _ = s.Read(b[:]) // until it ends
}

// replay gives a stream's first message again.
type replay struct {
	libp2p.Stream
	ask  *pb.Ask
	head []byte
}

func (r *replay) Read(p []byte) (int, error) {
	if r.ask != nil {
		var b buffer
		_ = wire.WriteMsg(&b, r.ask, askMax)
		r.head, r.ask = b, nil
	}
	if len(r.head) > 0 {
		n := copy(p, r.head)
		r.head = r.head[n:]
		return n, nil
	}
	return r.Stream.Read(p)
}

type buffer []byte

func (b *buffer) Write(p []byte) (int, error) {
	*b = append(*b, p...)
	return len(p), nil
}

// flip changes one bit of a small piece where it lies on a peer's disk.
func (x *fakeNode) flip(p piece.Piece) {
	x.w.t.Helper()
	data, err := x.pieces.ReadSmall(p.ID, nil)
	if err != nil {
		x.w.t.Fatal(err)
	}
	flipIn(x.w.t, x.dir+"/pieces", data)
}

// flipIn changes one bit in the middle of some bytes in a file below a folder.
func flipIn(t testing.TB, dir string, data []byte) {
	t.Helper()
	found := errors.New("found")
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		at := bytes.Index(raw, data)
		if err != nil || at < 0 {
			return err
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		at += len(data) / 2
		_, err = f.WriteAt([]byte{raw[at] ^ 1}, int64(at))
		return errors.Join(found, err, f.Close())
	})
	if !errors.Is(err, found) {
		t.Fatalf("the bytes are not below %s: %v", dir, err)
	}
}
