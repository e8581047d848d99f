package client

import (
	"errors"
	"fmt"
)

// Kind says what sort of failure an [Error] is. Programs decide by it; people
// read the text. Kinds are only ever added.
type Kind string

// The kinds of failure that cross the API.
const (
	KindInternal   Kind = "internal"     // a bug, or something nobody thought of
	KindInvalid    Kind = "invalid"      // the request or the link makes no sense
	KindNotFound   Kind = "not_found"    // no such share, or nobody provides the root
	KindExists     Kind = "exists"       // the destination is taken
	KindNoSpace    Kind = "no_space"     // the disk is full
	KindPermission Kind = "permission"   // the file system said no
	KindMissing    Kind = "missing"      // a path on this machine does not exist
	KindCorrupt    Kind = "corrupt"      // what the link names cannot be a file or folder
	KindChanged    Kind = "changed"      // a shared file is not what it was
	KindBusy       Kind = "busy"         // another peer runs on this home, or the same work is under way
	KindRefused    Kind = "refused"      // token, Host or Origin were wrong
	KindNoPeer     Kind = "no_peer"      // nobody listens; made by the client only
	KindLost       Kind = "lost"         // the peer went away in the middle; made by the client only
	KindStopping   Kind = "stopping"     // the peer is shutting down
	KindUnready    Kind = "unready"      // a part of the peer is not there
	KindHome       Kind = "corrupt_home" // the peer's own folder is damaged
)

// Error is the one shape of failure, as the body of every answer that is not
// a success and as the SSE event "error".
type Error struct {
	Kind Kind   `json:"kind" doc:"What sort of failure it is, for programs"`
	Text string `json:"error" doc:"What went wrong, for people"`
	Hint string `json:"hint,omitempty" doc:"What to do about it"`

	cause error
}

// Error returns the text without the hint.
func (e *Error) Error() string { return e.Text }

// Unwrap returns the error that this one was made from. It does not cross the API.
func (e *Error) Unwrap() error { return e.cause }

// Is makes every error of a kind equal to the sentinel of that kind.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Text == "" && t.Kind == e.Kind
}

// ErrNoPeer is what [errors.Is] finds when no peer is running on a home.
var ErrNoPeer error = &Error{Kind: KindNoPeer}

// Wrap gives err a kind and a hint. The text is err's own; a nil err is nil.
func Wrap(kind Kind, err error, hint string) error {
	if err == nil {
		return nil
	}
	return &Error{Kind: kind, Text: err.Error(), Hint: hint, cause: err}
}

// Errorf makes an error of the given kind.
func Errorf(kind Kind, hint, format string, args ...any) error {
	return Wrap(kind, fmt.Errorf(format, args...), hint)
}

// KindOf returns the kind of err, or [KindInternal] when it has none.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return KindInternal
}
