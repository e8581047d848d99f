package mount

import (
	"errors"
	"io"
	"io/fs"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// claim checks a request's If header and the locks against what it is about to change. Its locks do not expire before
// release is called.
func (f *face) claim(r *http.Request, p string, claims ...claim) (release func(), err error) {
	tokens, code := f.ifHeader(r, p)
	if code != 0 {
		if code == http.StatusBadRequest {
			return nil, status(code, "the If header cannot be read")
		}
		return nil, status(code, "no list of the If header holds")
	}
	release, blocked := f.locks.use(time.Now(), tokens, claims...)
	if blocked != "" {
		return nil, f.lockedAt(blocked)
	}
	return release, nil
}

// lockedAt is the answer to a request that lacks the token of a lock.
func (f *face) lockedAt(p string) error {
	return precondition(http.StatusLocked, "<D:lock-token-submitted><D:href>"+escapeText(f.href(p, false))+
		"</D:href></D:lock-token-submitted>", errLocked.Error())
}

// stat describes what is at p; there is false if nothing is.
func (f *face) stat(r *http.Request, p string) (info Info, there bool, err error) {
	info, err = f.files.Stat(r.Context(), p)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrNotFolder) {
		return Info{}, false, nil
	}
	return info, err == nil, err
}

// inFolder fails with 409, as RFC 4918 wants it, if the folder that p is to lie in is not there.
func (f *face) inFolder(r *http.Request, p string) error {
	info, there, err := f.stat(r, parent(p))
	switch {
	case err != nil:
		return err
	case !there || !info.Folder:
		return status(http.StatusConflict, "there is no folder %s", parent(p))
	}
	return nil
}

// put makes the request's body a file, as it arrives.
func (f *face) put(w http.ResponseWriter, r *http.Request, p string) error {
	if r.Header.Get("Content-Range") != "" {
		return status(http.StatusBadRequest, "a part of a file cannot be put (RFC 9110 section 14.4)")
	}
	info, there, err := f.stat(r, p)
	if err != nil {
		return err
	}
	if info.Folder || strings.HasSuffix(r.URL.Path, "/") {
		return ErrIsFolder
	}
	reach := itself
	if !there {
		reach = member
	}
	release, err := f.claim(r, p, claim{p, reach})
	if err != nil {
		return err
	}
	defer release()
	if err := conditions(r, info, there); err != nil {
		return err
	}
	if err := f.inFolder(r, p); err != nil {
		return err
	}
	at, given := modTimeOf(r.Header)
	if !given {
		at = f.opt.Now()
	}
	body := &toldBody{Reader: r.Body}
	after, err := f.files.Put(r.Context(), p, body, at)
	if err != nil {
		return putFailed(body.err, err)
	}
	if given && r.Header.Get("X-OC-Mtime") != "" {
		w.Header().Set("X-OC-Mtime", "accepted")
	}
	if tag := etagOf(after); tag != "" {
		w.Header().Set("Etag", tag)
	}
	w.WriteHeader(created(!there))
	return nil
}

// putFailed tells a body that did not arrive from files that cannot be written.
func putFailed(ofBody, err error) error {
	if ofBody != nil {
		return status(http.StatusBadRequest, "the file did not arrive whole: %v", ofBody)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return status(http.StatusConflict, "the folder is gone")
	}
	return err
}

func created(fresh bool) int {
	if fresh {
		return http.StatusCreated
	}
	return http.StatusNoContent
}

// toldBody remembers why a body ended before its end, which an FS may report in its own words.
type toldBody struct {
	io.Reader
	err error
}

func (b *toldBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err != nil && err != io.EOF {
		b.err = err
	}
	return n, err
}

// modTimeOf is the modification time that a client wants a file to have: X-OC-Mtime in seconds since 1970 as ownCloud's
// clients and rclone send it, perhaps with a fraction, or else Last-Modified as a date.
func modTimeOf(h http.Header) (at time.Time, given bool) {
	if at, given = secondsTime(h.Get("X-OC-Mtime")); given {
		return at, true
	}
	at, err := http.ParseTime(h.Get("Last-Modified"))
	return at, err == nil
}

// secondsTime reads a time in seconds since 1970, from then to the year 9999.
func secondsTime(s string) (time.Time, bool) {
	whole, fraction, _ := strings.Cut(s, ".")
	seconds, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || seconds < 0 || seconds > 253402300799 {
		return time.Time{}, false
	}
	nanos := 0
	if fraction != "" {
		if nanos, err = strconv.Atoi((fraction + "000000000")[:9]); err != nil || nanos < 0 || fraction[0] == '+' {
			return time.Time{}, false
		}
	}
	return time.Unix(seconds, int64(nanos)), true
}

// conditions checks If-Match, If-None-Match and If-Unmodified-Since for a change (RFC 9110 section 13).
func conditions(r *http.Request, info Info, there bool) error {
	etag := ""
	if there {
		etag = etagOf(info)
	}
	failed := status(http.StatusPreconditionFailed, "it is not in the state that the request is for")
	if match := r.Header.Values("If-Match"); len(match) > 0 && !matches(match, etag, there) {
		return failed
	} else if len(match) == 0 && there {
		if at, err := http.ParseTime(r.Header.Get("If-Unmodified-Since")); err == nil && info.ModTime.Truncate(time.Second).After(at) {
			return failed
		}
	}
	if none := r.Header.Values("If-None-Match"); len(none) > 0 && matches(none, etag, there) {
		return failed
	}
	return nil
}

// matches reports whether a list of ETags has this one, or is "*" and something is there. Our tags have no commas.
func matches(headers []string, etag string, there bool) bool {
	for part := range strings.SplitSeq(strings.Join(headers, ","), ",") {
		if part = strings.TrimSpace(part); part == "*" && there || part != "" && part == etag {
			return true
		}
	}
	return false
}

// mkcol makes a folder.
func (f *face) mkcol(w http.ResponseWriter, r *http.Request, p string) error {
	var one [1]byte
	if n, _ := io.ReadFull(r.Body, one[:]); n > 0 {
		return status(http.StatusUnsupportedMediaType, "MKCOL takes no body here")
	}
	info, there, err := f.stat(r, p)
	if err != nil {
		return err
	}
	release, err := f.claim(r, p, claim{p, member})
	if err != nil {
		return err
	}
	defer release()
	if err := conditions(r, info, there); err != nil {
		return err
	}
	if there {
		return fs.ErrExist
	}
	if err := f.inFolder(r, p); err != nil {
		return err
	}
	if err := f.files.Mkdir(r.Context(), p); err != nil {
		return err
	}
	w.WriteHeader(http.StatusCreated)
	return nil
}

// remove answers DELETE. It is whole or not at all, so there is nothing for a multistatus to tell apart.
func (f *face) remove(w http.ResponseWriter, r *http.Request, p string) error {
	if depth := r.Header.Get("Depth"); depth != "" && !strings.EqualFold(depth, "infinity") {
		return status(http.StatusBadRequest, "Depth must be infinity")
	}
	if p == "/" {
		return status(http.StatusForbidden, "all of it cannot be removed at once")
	}
	info, there, err := f.stat(r, p)
	if err != nil {
		return err
	}
	release, err := f.claim(r, p, claim{p, subtree})
	if err != nil {
		return err
	}
	defer release()
	if !there {
		return fs.ErrNotExist
	}
	if err := conditions(r, info, there); err != nil {
		return err
	}
	if err := f.files.Remove(r.Context(), p); err != nil {
		return err
	}
	f.forget(p)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// forget drops the locks and properties of what is no longer there.
func (f *face) forget(p string) {
	f.locks.removeBelow(p)
	f.props.remove(p)
}
