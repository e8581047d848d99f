package names

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"iter"
	"math/bits"
	"strings"
)

// Digest stands for a whole set of records. Two replicas with the same digest hold the same records.
type Digest [32]byte

// String shows the first eight bytes.
func (d Digest) String() string { return hex.EncodeToString(d[:8]) }

// sum adds up record hashes as 256-bit numbers, so that the order does not matter and a record can be taken out again.
// Addition rather than exclusive or: a record counted twice does not vanish.
type sum struct {
	words [4]uint64
	count uint64
}

func (s *sum) add(id *ID) {
	var carry uint64
	for i := range s.words {
		s.words[i], carry = bits.Add64(s.words[i], binary.LittleEndian.Uint64(id[8*i:]), carry)
	}
	s.count++
}

func (s *sum) sub(id *ID) {
	var borrow uint64
	for i := range s.words {
		s.words[i], borrow = bits.Sub64(s.words[i], binary.LittleEndian.Uint64(id[8*i:]), borrow)
	}
	s.count--
}

// digest hashes the sum and the count: whoever wants another set with the same digest must find one with the same sum
// and size, not just steer some bits of it.
func (s *sum) digest() Digest {
	var buf [40]byte
	for i, w := range s.words {
		binary.LittleEndian.PutUint64(buf[8*i:], w)
	}
	binary.LittleEndian.PutUint64(buf[32:], s.count)
	return sha256.Sum256(buf[:])
}

// Set holds one record for each key, indexed by key and by time. It is a plain container: which record wins is
// decided before it is put in.
type Set struct {
	byKey  map[string]*Record
	keys   sorted[string]
	byTime sorted[*Record]
	sum    sum
	bytes  int64
	dead   int
}

// NewSet returns an empty set.
func NewSet() *Set {
	return &Set{
		byKey:  map[string]*Record{},
		keys:   sorted[string]{compare: strings.Compare},
		byTime: sorted[*Record]{compare: byTime},
	}
}

// byTime is the order of reconciliation.
func byTime(a, b *Record) int {
	if c := cmp.Compare(a.Time, b.Time); c != 0 {
		return c
	}
	return bytes.Compare(a.id[:], b.id[:])
}

// Get returns the record of a key, which may be a tombstone, or nil.
func (s *Set) Get(key string) *Record { return s.byKey[key] }

// Put makes r the record of its key, whatever was there.
func (s *Set) Put(r *Record) {
	old := s.byKey[r.Key]
	if old != nil {
		s.forget(old)
	} else {
		s.keys.insert(r.Key)
	}
	s.byKey[r.Key] = r
	s.byTime.insert(r)
	s.sum.add(&r.id)
	s.bytes += int64(r.Size())
	if r.Deleted {
		s.dead++
	}
}

// Drop removes a key's record without a trace.
func (s *Set) Drop(key string) {
	if r := s.byKey[key]; r != nil {
		s.forget(r)
		delete(s.byKey, key)
		s.keys.remove(key)
	}
}

// forget undoes what Put did for a record, except for its key.
func (s *Set) forget(r *Record) {
	s.byTime.remove(r)
	s.sum.sub(&r.id)
	s.bytes -= int64(r.Size())
	if r.Deleted {
		s.dead--
	}
}

// Len is the number of records, tombstones included.
func (s *Set) Len() int { return len(s.byKey) }

// Live is the number of keys that have a value.
func (s *Set) Live() int { return len(s.byKey) - s.dead }

// Bytes is the size of all records' encodings.
func (s *Set) Bytes() int64 { return s.bytes }

// Digest stands for all that the set holds, tombstones included.
func (s *Set) Digest() Digest { return s.sum.digest() }

// All yields all records in the order of their times. The set must not change meanwhile.
func (s *Set) All() iter.Seq[*Record] { return s.byTime.from(&Record{}) }

// Newest yields all records, the latest first. The set must not change meanwhile.
func (s *Set) Newest() iter.Seq[*Record] { return s.byTime.backward() }

// Scan yields the records, tombstones included, whose keys begin with prefix and are not less than from, in the order
// of their keys. The set must not change meanwhile.
func (s *Set) Scan(prefix, from string) iter.Seq[*Record] {
	return func(yield func(*Record) bool) {
		for key := range s.keys.from(max(prefix, from)) {
			if !strings.HasPrefix(key, prefix) || !yield(s.byKey[key]) {
				return
			}
		}
	}
}
