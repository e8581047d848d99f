package mount

import (
	"errors"
	"io/fs"
	"net/http"
	"net/url"
	"strings"
)

// transfer is a COPY or MOVE that has been read.
type transfer struct {
	from, to  string
	move      bool
	deep      bool
	overwrite bool
}

// copyMove answers COPY and MOVE. The FS does either in one step, so what is at the destination is not removed before.
func (f *face) copyMove(w http.ResponseWriter, r *http.Request, p string) error {
	t, err := f.readTransfer(r, p)
	if err != nil {
		return err
	}
	info, there, err := f.stat(r, t.from)
	if err != nil {
		return err
	}
	if !there {
		return fs.ErrNotExist
	}
	if err := t.check(info); err != nil {
		return err
	}
	_, replaces, err := f.stat(r, t.to)
	if err != nil {
		return err
	}
	release, err := f.claim(r, p, t.claims(replaces)...)
	if err != nil {
		return err
	}
	defer release()
	if err := conditions(r, info, true); err != nil {
		return err
	}
	if replaces && !t.overwrite {
		return status(http.StatusPreconditionFailed, "there is something at the destination")
	}
	if err := f.inFolder(r, t.to); err != nil {
		return err
	}
	if err := f.transfer(r, t); err != nil {
		return err
	}
	w.WriteHeader(created(!replaces))
	return nil
}

// transfer does what was asked for, with the properties that go along.
func (f *face) transfer(r *http.Request, t transfer) error {
	var err error
	if t.move {
		err = f.files.Move(r.Context(), t.from, t.to, t.overwrite)
	} else {
		err = f.files.Copy(r.Context(), t.from, t.to, t.overwrite, t.deep)
	}
	if errors.Is(err, fs.ErrExist) {
		return status(http.StatusPreconditionFailed, "there is something at the destination")
	}
	if err != nil {
		return err
	}
	// Of the destination only its properties change: a lock that its holder has shown stays with the path.
	f.props.remove(t.to)
	if t.move {
		f.props.move(t.from, t.to)
		f.locks.removeBelow(t.from) // locks do not move (RFC 4918 section 7.5)
	} else {
		f.props.copy(t.from, t.to, t.deep)
	}
	return nil
}

// readTransfer reads the headers of a COPY or MOVE.
func (f *face) readTransfer(r *http.Request, p string) (transfer, error) {
	t := transfer{from: p, move: r.Method == "MOVE", deep: true, overwrite: true}
	var err error
	if t.to, err = f.destination(r); err != nil {
		return t, err
	}
	switch depth := strings.ToLower(r.Header.Get("Depth")); {
	case depth == "0" && !t.move:
		t.deep = false
	case depth != "" && depth != "infinity":
		return t, status(http.StatusBadRequest, "Depth must be infinity, or for COPY 0")
	}
	switch strings.ToUpper(r.Header.Get("Overwrite")) {
	case "", "T": // T where there is no header (RFC 4918 section 10.6)
	case "F":
		t.overwrite = false
	default:
		return t, status(http.StatusBadRequest, "Overwrite must be T or F")
	}
	return t, nil
}

// destination reads the Destination header: a URL, or a path as of RFC 4918, of this face.
func (f *face) destination(r *http.Request) (string, error) {
	u, err := url.Parse(r.Header.Get("Destination"))
	if err != nil || u.Path == "" || u.Path[0] != '/' {
		return "", status(http.StatusBadRequest, "the Destination header is missing or no URL")
	}
	if u.Host != "" && !strings.EqualFold(u.Host, r.Host) {
		return "", status(http.StatusBadGateway, "the destination is on another server")
	}
	p, ok := f.locate(u)
	if !ok {
		return "", status(http.StatusBadGateway, "the destination is not among these files")
	}
	return p, nil
}

// check refuses what has no meaning.
func (t transfer) check(from Info) error {
	switch {
	case t.from == t.to:
		return status(http.StatusForbidden, "it is already there")
	case t.to == "/" || t.from == "/" && t.move:
		return status(http.StatusForbidden, "the folder of all files cannot be moved or replaced")
	case from.Folder && t.deep && below(t.to, t.from):
		return status(http.StatusForbidden, "a folder cannot be put into itself")
	case below(t.from, t.to):
		return status(http.StatusForbidden, "it would replace the folder that it is in")
	}
	return nil
}

// claims are what is touched: the destination, and in a move the source.
func (t transfer) claims(replaces bool) []claim {
	out := []claim{{t.to, member}}
	if replaces {
		out[0].reach = subtree
	}
	if t.move {
		out = append(out, claim{t.from, subtree})
	}
	return out
}
