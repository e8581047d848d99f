package names

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Bounds of one turn and of one session.
const (
	// TurnMax is the most bytes of a turn's parts together.
	TurnMax = rangesMax + wantMax*wantSize + recordsMax + RecordMax

	rangesMax  = 32 << 10  // bytes of ranges in one turn
	wantMax    = 1024      // records asked for in one turn
	recordsMax = 128 << 10 // bytes of records in one turn; one more may pass it

	spansMax = 1 << 17 // ranges waiting to be sent
	turnsMax = 1 << 14 // turns of one side in a session

	wantSize = 8 + shortLen
)

// ErrProtocol is what the other side's turn is when it is malformed or asks for too much, by errors.Is.
var ErrProtocol = errors.New("reconciliation: the other side broke the protocol")

// Turn is what one side says at once. A turn with nothing in it says that its sender has no more to say.
type Turn struct {
	Ranges  []byte    // what the sender holds in some ranges
	Want    []byte    // records that the sender lacks and the other listed
	Records []*Record // records that the other lacks
}

func (t *Turn) empty() bool { return len(t.Ranges) == 0 && len(t.Want) == 0 && len(t.Records) == 0 }

// Out is what a step leads to.
type Out struct {
	Turn Turn // to be sent, unless Done
	Drop []*Record
	// Done: both sides have nothing more to say; the stream can be closed.
	Done bool
}

// Session is one side of a reconciliation: both sides take turns until the sets are the union of both. It holds no
// snapshot: every step looks at the set as it then is, so the set may change between steps (not during one), and what
// changed meanwhile is either seen or left for the next session.
//
// The other side may be hostile: it can make a session useless, but it cannot make it cost more than a few times what
// sending all of the set would.
type Session struct {
	set   *Set
	limit HLC // records beyond it are not asked for
	yield HLC // records before it that the other side lacks are dropped rather than sent

	spans []span
	want  []point
	send  []*Record
	sent  int // records queued so far
	turns int
}

// NewSession begins a session over a set. See Replica.Session for the limits.
func NewSession(set *Set, limit, yield HLC) *Session {
	return &Session{set: set, limit: limit, yield: yield}
}

// Start returns the first turn of the side that begins.
func (s *Session) Start() Turn {
	s.spans = describe(s.set, firstPoint, endPoint)
	return s.compose()
}

// Step answers a turn of the other side. Its records are not looked at: the caller judges them, before the step or
// after. Errors are ErrProtocol, and end the session.
func (s *Session) Step(ranges, want []byte, records int) (Out, error) {
	var out Out
	if s.turns++; s.turns > turnsMax {
		return out, fmt.Errorf("%w: no end after %d turns", ErrProtocol, turnsMax)
	}
	if err := s.answerRanges(ranges, &out); err != nil {
		return out, err
	}
	if err := s.answerWant(want, &out); err != nil {
		return out, err
	}
	out.Turn = s.compose()
	silent := len(ranges) == 0 && len(want) == 0 && records == 0
	out.Done = silent && out.Turn.empty()
	return out, nil
}

// answerRanges compares what the other side holds with the set.
func (s *Session) answerRanges(data []byte, out *Out) error {
	spans, err := readSpans(data)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	for _, sp := range spans {
		if sp.mode == modeList {
			s.compareList(sp, out)
			continue
		}
		var own sum
		for r := range within(s.set, sp.lo, sp.hi) {
			own.add(&r.id)
		}
		if own.fingerprint() != sp.sum {
			s.spans = append(s.spans, describe(s.set, sp.lo, sp.hi)...)
		}
	}
	if len(s.spans) > spansMax {
		return fmt.Errorf("%w: more than %d ranges differ", ErrProtocol, spansMax)
	}
	return s.checkSent()
}

// compareList settles a range: what the other side did not list is sent to it, what it did and the set lacks is asked
// for.
func (s *Session) compareList(sp span, out *Out) {
	theirs := sp.list
	for r := range within(s.set, sp.lo, sp.hi) {
		p := pointOf(r)
		for len(theirs) > 0 && theirs[0].compare(p) < 0 {
			s.ask(theirs[0])
			theirs = theirs[1:]
		}
		if len(theirs) > 0 && theirs[0] == p {
			theirs = theirs[1:]
			continue
		}
		s.offer(r, out)
	}
	for _, p := range theirs {
		s.ask(p)
	}
}

// ask notes a record to be asked for. One that the clock would refuse is not: it would come again and again.
func (s *Session) ask(p point) {
	if p.time <= s.limit {
		s.want = append(s.want, p)
	}
}

// offer notes a record to be sent, or dropped.
func (s *Session) offer(r *Record, out *Out) {
	if r.Time < s.yield {
		out.Drop = append(out.Drop, r)
		return
	}
	s.sent++
	s.send = append(s.send, r)
}

// answerWant looks up what the other side asked for. What is gone was replaced by something later meanwhile, which
// the next session finds.
func (s *Session) answerWant(data []byte, out *Out) error {
	if len(data)%wantSize != 0 || len(data) > wantMax*wantSize {
		return fmt.Errorf("%w: %d bytes of wishes", ErrProtocol, len(data))
	}
	for ; len(data) > 0; data = data[wantSize:] {
		p := point{HLC(binary.BigEndian.Uint64(data)), short(data[8:wantSize])}
		from := &Record{Time: p.time}
		copy(from.id[:], p.id[:])
		for r := range s.set.byTime.from(from) {
			if pointOf(r) == p {
				s.offer(r, out)
			}
			break
		}
	}
	return s.checkSent()
}

// checkSent bounds what one session sends: an honest side is sent no record twice, but for changes meanwhile.
func (s *Session) checkSent() error {
	if s.sent > 2*s.set.Len()+wantMax {
		return fmt.Errorf("%w: it asks for more than there is", ErrProtocol)
	}
	return nil
}

// compose makes a turn of what waits, as much as fits.
func (s *Session) compose() Turn {
	var t Turn
	t.Ranges = s.composeRanges()
	n := min(len(s.want), wantMax)
	for _, p := range s.want[:n] {
		t.Want = binary.BigEndian.AppendUint64(t.Want, uint64(p.time))
		t.Want = append(t.Want, p.id[:]...)
	}
	s.want = s.want[n:]
	size := 0
	for len(s.send) > 0 && size < recordsMax {
		t.Records = append(t.Records, s.send[0])
		size += s.send[0].Size()
		s.send[0] = nil
		s.send = s.send[1:]
	}
	return t
}

// composeRanges writes waiting ranges as long as they fit and are in order.
func (s *Session) composeRanges() []byte {
	var w spanWriter
	for len(s.spans) > 0 {
		sp := s.spans[0]
		if sp.lo.compare(w.at) < 0 || len(w.buf) > 0 && len(w.buf)+sp.sizeMax() > rangesMax {
			break
		}
		w.add(sp)
		s.spans = s.spans[1:]
	}
	return w.buf
}
