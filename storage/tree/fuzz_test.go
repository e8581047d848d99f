package tree

import (
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/directory"
	"github.com/shoal-os/shoal/storage/tree/paths"
)

// fuzzPeer writes the records of the fuzz tests.
const fuzzPeer peer.ID = "peer eve"

// FuzzVersion lets another member write any value under the key that fits it. What is taken in must be within all
// limits, be found in the tree, and be encoded again with the same meaning.
func FuzzVersion(f *testing.F) {
	good := &paths.Version{
		Kind: File, Copies: 3, Mode: 0o644, Root: chunk.SumRaw([]byte("x")), Size: 1, MTime: -1,
		Author: &paths.Author{Peer: fuzzPeer, Name: "Eve"}, Replaces: []ID{{1}, {2}},
	}
	large := *good
	large.Root, large.Size = chunk.SumNode(nil), 2*paths.PieceMax+5
	large.Pieces = []chunk.CID{chunk.SumNode([]byte("a")), chunk.SumNode([]byte("b")), chunk.SumRaw([]byte("c"))}
	for _, v := range []*paths.Version{good, &large, {Kind: Removed, Copies: 1, Author: good.Author, Batch: 7}} {
		c, err := encodeVersion("/a/b.txt", v)
		must(f, err)
		f.Add(c.Value)
	}
	for _, path := range []string{"/../x", "/a/\x1b[2J", "a", "/", "//", "/a/"} {
		value, err := proto.Marshal(&VersionRecord{Path: path, Kind: 2, Copies: 3, AuthorName: "\x1b[31m\u202e"})
		must(f, err)
		f.Add(value)
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		if len(value) > directory.ValueMax {
			return // the directory takes none
		}
		var m VersionRecord
		_ = proto.Unmarshal(value, &m) // to have the key that fits, if any does
		id := versionID(fuzzPeer, value)
		r := &directory.Record{Key: fileKey(paths.HashOf(m.Path), id), Value: value, Author: fuzzPeer, Time: 1}
		path, v, err := newDecoder().version(r)
		if err != nil {
			return
		}
		if err := paths.Check(path); err != nil {
			t.Fatal(err)
		}
		if err := v.Check(); err != nil {
			t.Fatal(err)
		}
		var bytes int64
		for p := range v.EachPiece() {
			if p.Size <= 0 || p.Size > paths.PieceMax || !p.ID.Defined() {
				t.Fatalf("a piece of %d bytes", p.Size)
			}
			bytes += p.Size
		}
		if bytes != v.Size {
			t.Fatalf("pieces of %d bytes make a file of %d", bytes, v.Size)
		}
		n := newFakeNames(fuzzPeer)
		n.merge(r)
		b := openBench(t, n, newFakeBytes())
		defer b.Close()
		if e, err := b.Stat(path); (err == nil) != (v.Kind != Removed) {
			t.Fatalf("%q: %+v, %v", path, e, err)
		}
		if len(b.listed(t)) == 0 && v.Kind != Removed {
			t.Fatalf("%q is nowhere", path)
		}
		again, err := encodeVersion(path, &v)
		if err != nil {
			return // it was at the limit of a record's size, with other fields
		}
		path2, v2, err := newDecoder().version(&directory.Record{Key: again.Key, Value: again.Value, Author: fuzzPeer, Time: 1})
		if err != nil || path2 != path || !v2.Same(&v) || len(v2.Replaces) != len(v.Replaces) {
			t.Fatalf("encoded again it is %+v, %v", v2, err)
		}
	})
}

// listed lists all paths without reading files, and checks that each can be looked up.
func (b *bench) listed(t *testing.T) (out []string) {
	for e, err := range b.Walk("/") {
		must(t, err)
		if _, err := b.Stat(e.Path); err != nil {
			t.Fatal(err)
		}
		if e.Path != "/" {
			out = append(out, e.Path)
		}
	}
	return out
}

// FuzzPin lets another member write any pin.
func FuzzPin(f *testing.F) {
	f.Add("pin/x/y", []byte("\x0a\x02/f"))
	f.Add(pinKey(fuzzPeer, "/f"), []byte("\x0a\x02/f"))
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		p, err := decodePin(&directory.Record{Key: key, Value: value, Author: fuzzPeer})
		if err == nil && (p.Peer != fuzzPeer || paths.Check(p.Path) != nil || pinKey(fuzzPeer, p.Path) != key) {
			t.Fatalf("%q passed as %+v", key, p)
		}
	})
}

// FuzzKey reads any text as a version's key.
func FuzzKey(f *testing.F) {
	f.Add(fileKey(paths.HashOf("/f"), ID{1}))
	f.Add("file/")
	f.Fuzz(func(t *testing.T, key string) {
		if path, id, ok := parseFileKey(key); ok && fileKey(path, id) != key {
			t.Fatalf("%q has two spellings", key)
		}
	})
}
