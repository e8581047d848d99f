package names

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
)

// The wire form of what reconciliation says about ranges of the ordered set. It follows negentropy's protocol V1
// (github.com/hoytech/negentropy) in its ideas: ranges follow each other without a gap, so that each needs its upper
// end only; times are differences; an end is as short as it can be.
//
//	spans := span*
//	span  := end mode body
//	end   := 0 | uvarint(time - time of the previous end or entry + 1) len(prefix) prefix
//	body  := nothing (skip) | 16 bytes (sum) | uvarint(n) n*(uvarint(time difference) 16 bytes) (list)

const (
	// shortLen is how much of a record's hash is sent. Nobody can aim at one record with less than 2^128 tries, and
	// a pair made to collide (2^64) only hides one of its own from the other.
	shortLen = 16

	// listMax is the most records of a range that are listed instead of summed: 24 entries of some 19 bytes cost what
	// one more split does, and spare a round trip.
	listMax = 24
	// fanOut is into how many parts a range is split.
	fanOut = 16
)

// mode says what a span tells of its range.
type mode uint8

const (
	modeSkip mode = 0 // nothing
	modeSum  mode = 1 // the fingerprint of what the sender holds
	modeList mode = 2 // all that the sender holds
)

type short [shortLen]byte

// point is a place in the order of records: at a record, or between two.
type point struct {
	time HLC
	id   short
}

var (
	firstPoint = point{}
	// endPoint is after every record: no hybrid time that passes a limit comes near it.
	endPoint = point{time: 1<<64 - 1, id: short(bytes.Repeat([]byte{0xff}, shortLen))}
)

func (p point) compare(q point) int {
	if c := cmp.Compare(p.time, q.time); c != 0 {
		return c
	}
	return bytes.Compare(p.id[:], q.id[:])
}

func pointOf(r *Record) point { return point{r.Time, short(r.id[:shortLen])} }

// between returns the shortest point that is after a and not after b.
func between(a, b *Record) point {
	if a.Time != b.Time {
		return point{time: b.Time}
	}
	p := point{time: b.Time}
	for i := range p.id {
		p.id[i] = b.id[i]
		if a.id[i] != b.id[i] {
			break
		}
	}
	return p
}

// span is what one side says of the range [lo, hi).
type span struct {
	lo, hi point
	mode   mode
	sum    short
	list   []point
}

// within yields a set's records of [lo, hi).
func within(s *Set, lo, hi point) iter.Seq[*Record] {
	from := &Record{Time: lo.time}
	copy(from.id[:], lo.id[:])
	return func(yield func(*Record) bool) {
		for r := range s.byTime.from(from) {
			if pointOf(r).compare(hi) >= 0 || !yield(r) {
				return
			}
		}
	}
}

// fingerprint shortens a sum to what is compared.
func (s *sum) fingerprint() short {
	d := s.digest()
	return short(d[:shortLen])
}

// describe says what a set holds in [lo, hi): a list if it is short, else the sums of its parts.
func describe(s *Set, lo, hi point) []span {
	n := 0
	for range within(s, lo, hi) {
		n++
	}
	if n <= listMax {
		list := make([]point, 0, n)
		for r := range within(s, lo, hi) {
			list = append(list, pointOf(r))
		}
		return []span{{lo: lo, hi: hi, mode: modeList, list: list}}
	}
	parts := make([]span, 0, fanOut)
	var (
		acc  sum
		prev *Record
		i    int
	)
	for r := range within(s, lo, hi) {
		if i > 0 && i == n*(len(parts)+1)/fanOut {
			cut := between(prev, r)
			parts = append(parts, span{lo: lo, hi: cut, mode: modeSum, sum: acc.fingerprint()})
			lo, acc = cut, sum{}
		}
		acc.add(&r.id)
		prev = r
		i++
	}
	return append(parts, span{lo: lo, hi: hi, mode: modeSum, sum: acc.fingerprint()})
}

// spanWriter encodes spans in ascending order; gaps between them become skips.
type spanWriter struct {
	buf  []byte
	at   point // the end of what is written
	last HLC   // what the next time is a difference to
}

func (w *spanWriter) add(s span) {
	if w.at != s.lo {
		w.head(s.lo, modeSkip)
	}
	w.head(s.hi, s.mode)
	switch s.mode {
	case modeSum:
		w.buf = append(w.buf, s.sum[:]...)
	case modeList:
		w.buf = binary.AppendUvarint(w.buf, uint64(len(s.list)))
		t := s.lo.time
		for _, p := range s.list {
			w.buf = binary.AppendUvarint(w.buf, uint64(p.time-t))
			w.buf = append(w.buf, p.id[:]...)
			t = p.time
		}
	}
}

func (w *spanWriter) head(end point, m mode) {
	w.at = end
	if end == endPoint {
		w.buf = append(w.buf, 0, byte(m))
		return
	}
	prefix := bytes.TrimRight(end.id[:], "\x00")
	w.buf = binary.AppendUvarint(w.buf, uint64(end.time-w.last)+1)
	w.buf = append(w.buf, byte(len(prefix)))
	w.buf = append(w.buf, prefix...)
	w.buf = append(w.buf, byte(m))
	w.last = end.time
}

// sizeMax is no less than what add will write for s.
func (s *span) sizeMax() int {
	const end = binary.MaxVarintLen64 + 1 + shortLen + 1
	return 2*end + shortLen + binary.MaxVarintLen64 + len(s.list)*(binary.MaxVarintLen64+shortLen)
}

// readSpans decodes what a spanWriter wrote, without the skips. The spans are in order and do not overlap; lists are
// in order and within their range.
func readSpans(data []byte) ([]span, error) {
	var (
		out []span
		at  = firstPoint
	)
	for len(data) > 0 {
		if at == endPoint {
			return nil, errors.New("something follows the last range")
		}
		s, rest, err := readSpan(data, at)
		if err != nil {
			return nil, fmt.Errorf("range %d: %w", len(out), err)
		}
		if s.mode != modeSkip {
			out = append(out, s)
		}
		at, data = s.hi, rest
	}
	return out, nil
}

var errShort = errors.New("it is cut short")

func readSpan(data []byte, lo point) (s span, rest []byte, err error) {
	s.lo = lo
	if s.hi, data, err = readEnd(data, lo); err != nil {
		return s, nil, err
	}
	if len(data) == 0 {
		return s, nil, errShort
	}
	s.mode, data = mode(data[0]), data[1:]
	switch s.mode {
	case modeSkip:
	case modeSum:
		if len(data) < shortLen {
			return s, nil, errShort
		}
		s.sum, data = short(data[:shortLen]), data[shortLen:]
	case modeList:
		s.list, data, err = readList(data, s.lo, s.hi)
	default:
		err = fmt.Errorf("mode %d is not known", s.mode)
	}
	return s, data, err
}

func readEnd(data []byte, lo point) (point, []byte, error) {
	d, data, err := cutUvarint(data)
	if err != nil || d == 0 {
		return endPoint, data, err
	}
	p := point{time: lo.time + HLC(d-1)}
	if p.time < lo.time {
		return p, nil, errors.New("a time beyond all times")
	}
	if len(data) == 0 || int(data[0]) > shortLen || int(data[0]) > len(data)-1 {
		return p, nil, errShort
	}
	n := int(data[0])
	if n > 0 && data[n] == 0 {
		return p, nil, errors.New("an end with a needless byte")
	}
	copy(p.id[:], data[1:1+n])
	if p.compare(lo) <= 0 || p.compare(endPoint) >= 0 {
		return p, nil, errors.New("a range that ends before it begins")
	}
	return p, data[1+n:], nil
}

func readList(data []byte, lo, hi point) ([]point, []byte, error) {
	n, data, err := cutUvarint(data)
	if err != nil {
		return nil, nil, err
	}
	if n > uint64(len(data)/(1+shortLen)) {
		return nil, nil, errShort
	}
	list := make([]point, 0, n)
	t := lo.time
	for range n {
		var d uint64
		if d, data, err = cutUvarint(data); err != nil {
			return nil, nil, err
		}
		if len(data) < shortLen {
			return nil, nil, errShort
		}
		p := point{t + HLC(d), short(data[:shortLen])}
		ordered := len(list) == 0 || list[len(list)-1].compare(p) < 0
		if p.time < t || !ordered || p.compare(lo) < 0 || p.compare(hi) >= 0 {
			return nil, nil, errors.New("a list out of order")
		}
		list = append(list, p)
		t, data = p.time, data[shortLen:]
	}
	return list, data, nil
}
