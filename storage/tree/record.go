package tree

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/directory"
	"github.com/shoal-os/shoal/storage/tree/paths"
)

const (
	filePrefix = "file/"
	pinPrefix  = "pin/"

	// versionDomain keeps ids of versions apart from all other hashes.
	versionDomain = "shoal file version v1\x00"

	hashHex   = 2 * len(paths.Hash{})
	idHex     = 2 * len(paths.ID{})
	digestLen = sha256.Size
)

// versionID is what a version is called: by what it says and who says it, so that a record with other contents under
// the same key is none.
func versionID(author peer.ID, value []byte) ID {
	buf := make([]byte, 0, len(versionDomain)+binary.MaxVarintLen16+len(author)+len(value))
	buf = append(buf, versionDomain...)
	buf = binary.AppendUvarint(buf, uint64(len(author)))
	buf = append(buf, author...)
	sum := sha256.Sum256(append(buf, value...))
	return ID(sum[:len(ID{})])
}

// fileKey is the key of a version's record.
func fileKey(path paths.Hash, id ID) string {
	buf := make([]byte, 0, len(filePrefix)+hashHex+1+idHex)
	buf = append(buf, filePrefix...)
	buf = hex.AppendEncode(buf, path[:])
	buf = append(buf, '/')
	return string(hex.AppendEncode(buf, id[:]))
}

// parseFileKey reads what fileKey wrote, in that one spelling.
func parseFileKey(key string) (path paths.Hash, id ID, ok bool) {
	rest, ok := strings.CutPrefix(key, filePrefix)
	if !ok || len(rest) != hashHex+1+idHex || rest[hashHex] != '/' {
		return path, id, false
	}
	if strings.ContainsAny(rest, "ABCDEF") {
		return path, id, false
	}
	_, err1 := hex.Decode(path[:], []byte(rest[:hashHex]))
	_, err2 := hex.Decode(id[:], []byte(rest[hashHex+1:]))
	return path, id, err1 == nil && err2 == nil
}

// encodeVersion makes the change that writes a version at a path. Its id follows from the rest, and its time is given
// by the directory.
func encodeVersion(path string, v *paths.Version) (directory.Change, error) {
	m := &VersionRecord{
		Path: path, Kind: uint32(v.Kind), Mode: v.Mode, MtimeNs: v.MTime, Copies: uint32(v.Copies),
		AuthorName: v.Author.Name, Batch: v.Batch, Size: uint64(v.Size), Root: v.Root.Bytes(),
	}
	for _, id := range v.Pieces {
		m.Pieces = append(m.Pieces, id.Sum[:]...)
	}
	for _, id := range v.Replaces {
		m.Replaces = append(m.Replaces, id[:]...)
	}
	value, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return directory.Change{}, fmt.Errorf("encode version: %w", err)
	}
	if len(value) > directory.ValueMax {
		return directory.Change{}, ErrTooLarge
	}
	id := versionID(v.Author.Peer, value)
	return directory.Change{Key: fileKey(paths.HashOf(path), id), Value: value}, nil
}

// version reads a record of anybody. It checks all that can be checked: that the key is the path's and the
// version's own, that the path is one, and that the numbers are possible. Fields that it does not know are left for
// builds to come; the key covers them as well.
func (d *decoder) version(r *directory.Record) (path string, v paths.Version, err error) {
	hash, id, ok := parseFileKey(r.Key)
	switch {
	case !ok:
		return "", v, errors.New("not a version's key")
	case versionID(r.Author, r.Value) != id:
		return "", v, errors.New("it is not what its key says")
	}
	m := &d.message
	if err := proto.Unmarshal(r.Value, m); err != nil {
		return "", v, fmt.Errorf("decode version: %w", err)
	}
	if paths.HashOf(m.Path) != hash {
		return "", v, errors.New("its path is not the key's")
	}
	if err := paths.Check(m.Path); err != nil {
		return "", v, err
	}
	if m.Path == paths.Root {
		return "", v, errors.New("the root is always a folder")
	}
	v = paths.Version{ID: id, Time: r.Time, Author: d.author(r.Author, m.AuthorName)}
	if err := fill(&v, m); err != nil {
		return "", v, err
	}
	return m.Path, v, v.Check()
}

// fill copies a message into a version, as far as it fits.
func fill(v *paths.Version, m *VersionRecord) (err error) {
	if m.Kind > 0xff || m.Copies > paths.CopiesMax || m.Size > paths.PiecesMax*paths.PieceMax {
		return errors.New("a number is too large")
	}
	v.Kind, v.Size = paths.Kind(m.Kind), int64(m.Size)
	v.Copies = uint8(m.Copies)
	if v.Copies == 0 {
		v.Copies = paths.CopiesDefault
	}
	v.Mode, v.MTime, v.Batch = m.Mode, m.MtimeNs, m.Batch
	if len(m.Root) > 0 {
		root, n, err := chunk.CIDFromBytes(m.Root)
		if err != nil {
			return err
		}
		if n != len(m.Root) {
			return errors.New("bytes behind the root")
		}
		v.Root = root
	}
	if v.Pieces, err = decodePieces(m.Pieces, v.Size); err != nil {
		return err
	}
	if len(m.Replaces)%len(ID{}) != 0 || len(m.Replaces) > paths.ReplacesMax*len(ID{}) {
		return fmt.Errorf("%d bytes of ids", len(m.Replaces))
	}
	for b := range slices.Chunk(m.Replaces, len(ID{})) {
		v.Replaces = append(v.Replaces, ID(b))
	}
	return nil
}

// decodePieces reads the digests of a file's pieces. Their codecs follow from the sizes.
func decodePieces(data []byte, size int64) (out []chunk.CID, err error) {
	count := len(data) / digestLen
	if len(data)%digestLen != 0 || count > paths.PiecesMax {
		return nil, fmt.Errorf("%d bytes of pieces", len(data))
	}
	for b := range slices.Chunk(data, digestLen) {
		out = append(out, chunk.CID{Codec: chunk.DagPB, Sum: [digestLen]byte(b)})
	}
	if count > 0 && size-int64(count-1)*paths.PieceMax <= paths.SmallMax {
		out[count-1].Codec = chunk.Raw
	}
	return out, nil
}

// authorsMax is how many authors are remembered. A pool has far fewer; names that change without end must not pile up.
const authorsMax = 4096

// decoder reads versions. It is for one goroutine at a time.
type decoder struct {
	message VersionRecord // used again and again
	authors map[paths.Author]*paths.Author
}

func newDecoder() *decoder { return &decoder{authors: map[paths.Author]*paths.Author{}} }

// author gives one Author for all versions of the same one; name is as its records spell it.
func (d *decoder) author(id peer.ID, name string) *paths.Author {
	spelt := paths.Author{Peer: id, Name: name}
	if known := d.authors[spelt]; known != nil {
		return known
	}
	if len(d.authors) >= authorsMax {
		clear(d.authors)
	}
	a := &paths.Author{Peer: id, Name: ident.CleanName(name)}
	d.authors[spelt] = a
	return a
}
