package wire

import (
	"errors"
	"fmt"

	"github.com/libp2p/go-libp2p/core/network"
)

// ErrKind numbers an error on the wire. The numbers are append-only: one is never reused nor given a new meaning.
// A kind that this build does not know is kept as its number, and treated as Unknown.
type ErrKind uint32

// The kinds, with what the other side may do about them.
const (
	Unknown   ErrKind = 0 // no more is known
	NotFound  ErrKind = 1 // the thing asked for is not here; ask another peer
	TooLarge  ErrKind = 2 // a message or a request passes a limit; ask for less
	Malformed ErrKind = 3 // the other side broke the protocol; do not repeat it
	Refused   ErrKind = 4 // not allowed; do not repeat it
	Busy      ErrKind = 5 // no room now; come back later
	Changed   ErrKind = 6 // the file behind the thing changed; it cannot be served any more
	Internal  ErrKind = 7 // a fault of the answering peer, such as a disk error; ask another peer
	Closing   ErrKind = 8 // the peer is going away; ask another peer
	// KindMax is the greatest kind that this build knows.
	KindMax = Closing
)

// resetBase is where shoal's stream reset codes begin: kind k resets with resetBase+k. Codes 0x1000 to 0x1009 are
// libp2p's own.
const resetBase network.StreamErrorCode = 0x2000

// resetSpan is how many codes from resetBase on are ours, today's kinds and later ones.
const resetSpan = 0x1000

// String names the kind in lower case.
func (k ErrKind) String() string {
	switch k {
	case Unknown:
		return "unknown"
	case NotFound:
		return "not found"
	case TooLarge:
		return "too large"
	case Malformed:
		return "malformed"
	case Refused:
		return "refused"
	case Busy:
		return "busy"
	case Changed:
		return "changed"
	case Internal:
		return "internal"
	case Closing:
		return "closing"
	default:
		return fmt.Sprintf("kind %d", uint32(k))
	}
}

// Error is an error with a number: one's own that is to be sent, or one that another peer sent. Text is for people;
// text from another peer must have passed CleanText.
type Error struct {
	Kind ErrKind
	Text string
}

// Error joins kind and text.
func (e *Error) Error() string {
	if e.Text == "" {
		return e.Kind.String()
	}
	return e.Kind.String() + ": " + e.Text
}

// Is makes errors.Is(err, &Error{Kind: NotFound}) ask for the kind alone: a target without text matches any text.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Kind == e.Kind && (t.Text == "" || t.Text == e.Text)
}

// Errorf makes an *Error with a formatted text.
func Errorf(kind ErrKind, format string, args ...any) error {
	return &Error{Kind: kind, Text: fmt.Sprintf(format, args...)}
}

// KindOf finds the number of an error: that of an *Error within it, or of a stream reset by the other side with one
// of our codes. It is Unknown for all else, nil included.
func KindOf(err error) ErrKind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	kind, _ := ResetKind(err)
	return kind
}

// Reset ends a stream at once in both directions and tells the other side the kind of err, as far as its transport
// carries codes (TCP with yamux and QUIC do). The other side finds it with ResetKind or KindOf.
func Reset(s network.Stream, err error) error {
	kind := KindOf(err)
	if kind >= resetSpan {
		kind = Unknown
	}
	return s.ResetWithError(resetBase + network.StreamErrorCode(kind))
}

// ResetKind reports whether err says that the other side reset the stream with one of our codes, and which kind the
// code stands for. A reset by this side is not reported: its reason was known here first.
func ResetKind(err error) (ErrKind, bool) {
	var se *network.StreamError
	if !errors.As(err, &se) || !se.Remote {
		return Unknown, false
	}
	if se.ErrorCode < resetBase || se.ErrorCode >= resetBase+resetSpan {
		return Unknown, false
	}
	return ErrKind(se.ErrorCode - resetBase), true
}
