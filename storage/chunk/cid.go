package chunk

import (
	"bytes"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"

	gocid "github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
)

// Codec says how a block's bytes are to be read. The numbers are those of the
// multicodec table.
type Codec uint8

// The two codecs of the profile.
const (
	Raw   Codec = 0x55 // bytes of a file, as they are
	DagPB Codec = 0x70 // a node: links and a UnixFS header
)

// String gives the codec's name in the multicodec table.
func (c Codec) String() string {
	switch c {
	case Raw:
		return "raw"
	case DagPB:
		return "dag-pb"
	default:
		return fmt.Sprintf("codec 0x%x", uint8(c))
	}
}

const (
	cidVersion  = 1
	hashSHA256  = 0x12 // sha2-256 in the multicodec table
	hashLen     = sha256.Size
	cidLen      = 4 + hashLen // version, codec, hash, length, digest: one byte each before the digest
	cidLenV0    = 2 + hashLen // hash, length, digest
	cidTextLen  = 59          // "b" and 36 bytes in base32 without padding
	cidTextMax  = 256         // no multibase form of a 36 byte CID but base2 is longer, and nobody writes that
	errTextMax  = 80          // characters of somebody else's text that an error repeats
	cidTextBase = 'b'
)

var base32Lower = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// CID is the name of a block: its codec and the sha2-256 digest of its bytes. It is
// a comparable value, fit to be a map key. The zero value is undefined.
type CID struct {
	Codec Codec
	Sum   [32]byte
}

// SumRaw gives the CID of a leaf with these bytes.
func SumRaw(data []byte) CID { return CID{Codec: Raw, Sum: sha256.Sum256(data)} }

// SumNode gives the CID of a node with these bytes.
func SumNode(data []byte) CID { return CID{Codec: DagPB, Sum: sha256.Sum256(data)} }

// Defined tells whether c names anything.
func (c CID) Defined() bool { return c.Codec != 0 }

// IsRaw tells whether c names a leaf.
func (c CID) IsRaw() bool { return c.Codec == Raw }

// Compare orders CIDs by codec, then digest.
func (c CID) Compare(d CID) int {
	if c.Codec != d.Codec {
		return int(c.Codec) - int(d.Codec)
	}
	return bytes.Compare(c.Sum[:], d.Sum[:])
}

// Bytes gives the 36 bytes of the CIDv1, nil if c is undefined.
func (c CID) Bytes() []byte {
	if !c.Defined() {
		return nil
	}
	return c.appendBytes(make([]byte, 0, cidLen))
}

func (c CID) appendBytes(b []byte) []byte {
	b = append(b, cidVersion, byte(c.Codec), hashSHA256, hashLen)
	return append(b, c.Sum[:]...)
}

// String gives the CIDv1 in lower-case base32 ("bafy…", "bafk…"), "" if c is undefined.
func (c CID) String() string {
	if !c.Defined() {
		return ""
	}
	var text [cidTextLen]byte
	return string(c.appendText(text[:0]))
}

func (c CID) appendText(b []byte) []byte {
	var raw [cidLen]byte
	b = append(b, cidTextBase)
	return base32Lower.AppendEncode(b, c.appendBytes(raw[:0]))
}

// MarshalText is String for encoders; an undefined CID is the empty text.
func (c CID) MarshalText() ([]byte, error) {
	if !c.Defined() {
		return []byte{}, nil
	}
	return c.appendText(make([]byte, 0, cidTextLen)), nil
}

// UnmarshalText is ParseCID for decoders; the empty text is the undefined CID.
func (c *CID) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*c = CID{}
		return nil
	}
	parsed, err := ParseCID(string(text))
	if err != nil {
		return err
	}
	*c = parsed
	return nil
}

// ParseCID reads a CID in any multibase, or a CIDv0 ("Qm…"), which becomes the CIDv1
// of the same node. Codecs other than raw and dag-pb, and hashes other than sha2-256,
// are errors. https://github.com/multiformats/cid
func ParseCID(s string) (CID, error) {
	switch {
	case s == "":
		return CID{}, errors.New("cid: empty")
	case len(s) > cidTextMax:
		return CID{}, fmt.Errorf("cid: %d characters, a CID has %d", len(s), cidTextLen)
	case s[0] == cidTextBase:
		return parseBase32(s)
	}
	parsed, err := gocid.Decode(s)
	if err != nil {
		return CID{}, fmt.Errorf("cid: %s is not a CID: %w", clip(s), err)
	}
	return fromGoCID(parsed)
}

// parseBase32 reads the usual form without detours, and refuses what would not come
// out of String again (bits behind the last byte).
func parseBase32(s string) (CID, error) {
	if len(s) < cidTextLen {
		return CID{}, fmt.Errorf("cid: %s has %d characters where a CID has %d: cut short?", clip(s), len(s), cidTextLen)
	}
	if len(s) > cidTextLen {
		return CID{}, fmt.Errorf("cid: %s has %d characters where a CID has %d", clip(s), len(s), cidTextLen)
	}
	var raw [cidLen]byte
	var text [cidTextLen]byte // a copy on the stack: no allocation
	copy(text[:], s)
	if _, err := base32Lower.Decode(raw[:], text[1:]); err != nil {
		return CID{}, fmt.Errorf("cid: %s is not base32: %w", clip(s), err)
	}
	c, _, err := CIDFromBytes(raw[:])
	if err != nil {
		return CID{}, err
	}
	if string(c.appendText(text[:0])) != s {
		return CID{}, fmt.Errorf("cid: %s is mistyped: its last character has stray bits", clip(s))
	}
	return c, nil
}

func fromGoCID(g gocid.Cid) (CID, error) {
	p := g.Prefix()
	if p.Codec != uint64(Raw) && p.Codec != uint64(DagPB) {
		return CID{}, fmt.Errorf("cid: codec 0x%x: only raw and dag-pb are known here", p.Codec)
	}
	if p.MhType != multihash.SHA2_256 || p.MhLength != hashLen {
		return CID{}, fmt.Errorf("cid: hash 0x%x of %d bytes: only sha2-256 is known here", p.MhType, p.MhLength)
	}
	c := CID{Codec: Codec(p.Codec)}
	mh := g.Hash()
	copy(c.Sum[:], mh[len(mh)-hashLen:])
	return c, nil
}

// CIDFromBytes reads the binary CID at the front of b, version 1 or 0, and tells how
// many bytes it took. The errors are those of ParseCID.
func CIDFromBytes(b []byte) (CID, int, error) {
	if len(b) >= 2 && b[0] == hashSHA256 && b[1] == hashLen { // CIDv0 is a bare multihash
		if len(b) < cidLenV0 {
			return CID{}, 0, fmt.Errorf("cid: %d bytes, want %d", len(b), cidLenV0)
		}
		return CID{Codec: DagPB, Sum: [hashLen]byte(b[2:cidLenV0])}, cidLenV0, nil
	}
	if len(b) < cidLen {
		return CID{}, 0, fmt.Errorf("cid: %d bytes, want %d", len(b), cidLen)
	}
	if b[0] != cidVersion {
		return CID{}, 0, fmt.Errorf("cid: version %d: only 0 and 1 are known here", b[0])
	}
	codec := Codec(b[1])
	if codec != Raw && codec != DagPB {
		return CID{}, 0, fmt.Errorf("cid: %v: only raw and dag-pb are known here", codec)
	}
	if b[2] != hashSHA256 || b[3] != hashLen {
		return CID{}, 0, fmt.Errorf("cid: hash 0x%x of %d bytes: only sha2-256 is known here", b[2], b[3])
	}
	return CID{Codec: codec, Sum: [hashLen]byte(b[4:cidLen])}, cidLen, nil
}

// clip quotes text of unknown origin for an error: escaped, and never long.
func clip(s string) string {
	if len(s) > errTextMax {
		return fmt.Sprintf("%q…", s[:errTextMax])
	}
	return fmt.Sprintf("%q", s)
}
