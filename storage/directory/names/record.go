// Package names owns the pure half of the directory: signed records, the hybrid clock that orders them, the merge that
// makes every replica agree, and the reconciliation by which two replicas find what they lack.
//
// A *record* says that a key has a value, or that it was deleted (a *tombstone*); it is signed by its *author*. Of two
// records for one key the later wins. A replica is a set of such winners, and the same set has the same digest however
// it came about.
//
// The package refuses to know a network, a disk or the time: all of its time comes as arguments, and nothing in it
// blocks. Types in it are not safe for concurrent use unless they say so.
package names

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
	"unique"

	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	// KeyMax is the longest key, in bytes.
	KeyMax = 512
	// ValueMax is the largest value, in bytes. What is larger belongs into a block, with its CID as the value.
	ValueMax = 32 << 10
	// RecordMax is the largest encoded record, in bytes.
	RecordMax = headSize + 2*binary.MaxVarintLen16 + KeyMax + ValueMax + ed25519.SignatureSize

	// domain separates these signatures from all others that the same key makes.
	domain = "shoal directory v1\x00"

	recordVersion = 1
	flagDeleted   = 1

	headSize = 1 + 1 + 8 + ed25519.PublicKeySize
)

// authorPrefix is what stands before the public key in an Ed25519 peer id: an identity multihash of a libp2p public
// key message. Every shoal peer has such a key, so 32 bytes name the author and no other spelling exists.
const authorPrefix = "\x00\x24\x08\x01\x12\x20"

var (
	// ErrRecord is what every record that cannot be decoded is, by errors.Is.
	ErrRecord = errors.New("not a record")
	// ErrSignature says that the record was not signed by its author for this pool.
	ErrSignature = errors.New("signature does not fit")
)

// Pool names the pool whose directory it is. It is signed with every record, so that one pool's records are worth
// nothing in another.
type Pool [32]byte

// ID is the hash of all that a record says, its pool included, and its signature not: two signatures under one
// statement are still one statement.
type ID [32]byte

// Record says what a key holds. Records are immutable once made; nobody may write to Value.
type Record struct {
	Key     string
	Value   []byte // nil when Deleted
	Time    HLC
	Author  peer.ID
	Deleted bool

	id  ID
	sig [ed25519.SignatureSize]byte
}

// ID returns the record's hash.
func (r *Record) ID() ID { return r.id }

// Size is the length of the record's encoding, in bytes.
func (r *Record) Size() int {
	return headSize + varintLen(len(r.Key)) + len(r.Key) + varintLen(len(r.Value)) + len(r.Value) + len(r.sig)
}

// Signer makes a signature with the key behind the author's peer id; libp2p's crypto.PrivKey is one.
type Signer interface {
	Sign([]byte) ([]byte, error)
}

// CheckKey says why a key cannot be used: empty, over KeyMax bytes, not UTF-8, or with a NUL in it.
func CheckKey(key string) error {
	switch {
	case key == "":
		return errors.New("the key is empty")
	case len(key) > KeyMax:
		return fmt.Errorf("the key has %d bytes, the limit is %d", len(key), KeyMax)
	case !utf8.ValidString(key):
		return errors.New("the key is not UTF-8")
	case strings.IndexByte(key, 0) >= 0:
		return errors.New("the key has a NUL byte")
	}
	return nil
}

// check holds the contents of a record against the limits.
func (r *Record) check() error {
	if err := CheckKey(r.Key); err != nil {
		return err
	}
	if len(r.Value) > ValueMax {
		return fmt.Errorf("the value has %d bytes, the limit is %d", len(r.Value), ValueMax)
	}
	if r.Deleted && len(r.Value) > 0 {
		return errors.New("a deletion with a value")
	}
	if len(r.Author) != len(authorPrefix)+ed25519.PublicKeySize || !strings.HasPrefix(string(r.Author), authorPrefix) {
		return errors.New("the author has no Ed25519 peer id")
	}
	return nil
}

// Sign completes a record: its hash and the author's signature.
func (r Record) Sign(pool Pool, by Signer) (*Record, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	if len(r.Value) == 0 {
		r.Value = nil
	}
	text := r.statement(pool)
	sig, err := by.Sign(text)
	if err != nil {
		return nil, fmt.Errorf("sign record: %w", err)
	}
	if copy(r.sig[:], sig) != len(sig) || len(sig) != len(r.sig) {
		return nil, fmt.Errorf("sign record: a signature of %d bytes", len(sig))
	}
	r.id = sha256.Sum256(text)
	return &r, nil
}

// Verify checks the author's signature. It is the costly part of taking a record in (some 60 µs), so it is apart from
// Decode: what would change nothing need not be verified. It is safe for concurrent use.
func (r *Record) Verify(pool Pool) error {
	key := ed25519.PublicKey(r.Author[len(authorPrefix):])
	if !ed25519.Verify(key, r.statement(pool), r.sig[:]) {
		return ErrSignature
	}
	return nil
}

// statement is what is hashed and signed.
func (r *Record) statement(pool Pool) []byte {
	buf := make([]byte, 0, len(domain)+len(pool)+r.Size())
	buf = append(buf, domain...)
	buf = append(buf, pool[:]...)
	return r.appendBody(buf)
}

func (r *Record) appendBody(buf []byte) []byte {
	var flags byte
	if r.Deleted {
		flags |= flagDeleted
	}
	buf = append(buf, recordVersion, flags)
	buf = binary.BigEndian.AppendUint64(buf, uint64(r.Time))
	buf = append(buf, r.Author[len(authorPrefix):]...)
	buf = binary.AppendUvarint(buf, uint64(len(r.Key)))
	buf = append(buf, r.Key...)
	buf = binary.AppendUvarint(buf, uint64(len(r.Value)))
	return append(buf, r.Value...)
}

// Append appends the record's one encoding to buf.
func (r *Record) Append(buf []byte) []byte {
	return append(r.appendBody(buf), r.sig[:]...)
}

// Decode reads one encoded record, which must be all of data, and hashes it for the pool. It checks everything but
// the signature. The record keeps nothing of data. Errors are ErrRecord.
func Decode(pool Pool, data []byte) (*Record, error) {
	r, err := decode(data)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRecord, err)
	}
	r.id = sha256.Sum256(r.statement(pool))
	return r, nil
}

func decode(data []byte) (*Record, error) {
	if len(data) > RecordMax {
		return nil, fmt.Errorf("it has %d bytes, the limit is %d", len(data), RecordMax)
	}
	if len(data) < headSize+len(Record{}.sig) {
		return nil, errors.New("it is cut short")
	}
	if data[0] != recordVersion || data[1]&^flagDeleted != 0 {
		return nil, fmt.Errorf("version %d with flags %#x is not known", data[0], data[1])
	}
	r := &Record{
		Deleted: data[1]&flagDeleted != 0,
		Time:    HLC(binary.BigEndian.Uint64(data[2:])),
		// One copy of each author's id, not one for each record.
		Author: peer.ID(unique.Make(authorPrefix + string(data[10:headSize])).Value()),
	}
	key, rest, err := cutBytes(data[headSize:])
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	value, rest, err := cutBytes(rest)
	if err != nil {
		return nil, fmt.Errorf("value: %w", err)
	}
	if len(rest) != len(r.sig) {
		return nil, fmt.Errorf("a signature of %d bytes", len(rest))
	}
	copy(r.sig[:], rest)
	r.Key = string(key)
	if len(value) > 0 {
		r.Value = bytes.Clone(value)
	}
	return r, r.check()
}

// cutBytes splits a byte string with its length off the front of data.
func cutBytes(data []byte) (s, rest []byte, err error) {
	n, rest, err := cutUvarint(data)
	if err != nil {
		return nil, nil, err
	}
	if n > uint64(len(rest)) {
		return nil, nil, errors.New("it is cut short")
	}
	return rest[:n], rest[n:], nil
}

// cutUvarint splits a varint in its shortest form off the front of data.
func cutUvarint(data []byte) (uint64, []byte, error) {
	n, used := binary.Uvarint(data)
	switch {
	case used <= 0:
		return 0, nil, errors.New("a number is cut short or too large")
	case used > 1 && data[used-1] == 0:
		return 0, nil, errors.New("a number has a needless byte")
	}
	return n, data[used:], nil
}

func varintLen(n int) int {
	size := 1
	for ; n >= 0x80; n >>= 7 {
		size++
	}
	return size
}

// Beats reports whether r wins over other for their key: the later time, then the greater author, then the greater
// hash. It is a strict total order on records, so the winner of any set is the same in whatever order it is met.
func (r *Record) Beats(other *Record) bool {
	if r.Time != other.Time {
		return r.Time > other.Time
	}
	if r.Author != other.Author {
		return r.Author > other.Author
	}
	return bytes.Compare(r.id[:], other.id[:]) > 0
}
