package mount

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/shoal-os/shoal/dht/wire"
	"github.com/shoal-os/shoal/storage/tree/paths"
)

const (
	requestsMax = 64               // at a time
	waitMax     = 10 * time.Second // for one of them to end
	pathMax     = 4096             // bytes of a path
)

// face is the WebDAV handler.
type face struct {
	files FS
	opt   Options
	born  time.Time // stands for the times that are not known
	props *propStore
	locks *lockTable
	slots chan struct{}
}

// handler answers a request for what is at a path.
type handler func(f *face, w http.ResponseWriter, r *http.Request, p string) error

// methodOf finds what answers a method, and whether it changes something.
func methodOf(name string) (h handler, writes bool) {
	switch name {
	case http.MethodOptions:
		return (*face).options, false
	case http.MethodGet, http.MethodHead:
		return (*face).get, false
	case "PROPFIND":
		return (*face).propfind, false
	case http.MethodPut:
		return (*face).put, true
	case http.MethodDelete:
		return (*face).remove, true
	case "MKCOL":
		return (*face).mkcol, true
	case "COPY", "MOVE":
		return (*face).copyMove, true
	case "PROPPATCH":
		return (*face).proppatch, true
	case "LOCK":
		return (*face).lock, true
	case "UNLOCK":
		return (*face).unlock, true
	}
	return nil, false
}

const (
	allowRead  = "OPTIONS, GET, HEAD, PROPFIND"
	allowWrite = allowRead + ", PUT, DELETE, MKCOL, COPY, MOVE, PROPPATCH, LOCK, UNLOCK"
)

// ServeHTTP implements [http.Handler].
func (f *face) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	setHeaders(w.Header())
	if !f.enter(r.Context()) {
		w.Header().Set("Retry-After", "1")
		f.fail(w, r, status(http.StatusServiceUnavailable, "too many requests at the same time"))
		return
	}
	defer func() { <-f.slots }()
	patient := newPatience(w, r)
	defer patient.end()
	if err := f.serve(patient, r); err != nil {
		f.fail(patient, r, err)
	}
}

// setHeaders says for every answer that a browser is to let nothing in it act. A page among the files would otherwise
// be one of this server's own, and could change all the others.
func setHeaders(h http.Header) {
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Content-Security-Policy", "sandbox; default-src 'none'; img-src 'self' data:; media-src 'self'; "+
		"style-src 'self' 'unsafe-inline'; font-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'")
}

// enter waits for one of the slots. Clients do not ask again on their own, so a short wait is better than a refusal.
func (f *face) enter(ctx context.Context) bool {
	select {
	case f.slots <- struct{}{}:
		return true
	default:
	}
	timer := time.NewTimer(waitMax)
	defer timer.Stop()
	select {
	case f.slots <- struct{}{}:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

func (f *face) serve(w http.ResponseWriter, r *http.Request) error {
	h, writes := methodOf(r.Method)
	if h == nil {
		w.Header().Set("Allow", f.allow())
		return status(http.StatusMethodNotAllowed, "there is no such method here")
	}
	p, ok := f.locate(r.URL)
	if r.Method == http.MethodOptions {
		return h(f, w, r, p) // Windows asks this of "/" before it looks anywhere else
	}
	switch {
	case !ok:
		return fs.ErrNotExist
	case writes && f.opt.ReadOnly:
		return ErrReadOnly
	}
	return h(f, w, r, p)
}

func (f *face) allow() string {
	if f.opt.ReadOnly {
		return allowRead
	}
	return allowWrite
}

// options says what can be done here. MS-Author-Via tells Windows that this is no FrontPage server.
func (f *face) options(w http.ResponseWriter, _ *http.Request, _ string) error {
	h := w.Header()
	h.Set("Allow", f.allow())
	h.Set("DAV", "1, 2")
	if f.opt.ReadOnly {
		h.Set("DAV", "1") // macOS mounts it read-only then
	}
	h.Set("MS-Author-Via", "DAV")
	h.Set("Accept-Ranges", "bytes")
	h.Set("Content-Length", "0")
	w.WriteHeader(http.StatusOK)
	return nil
}

// locate finds the path that a URL names; ok is false if it names none of this face. Empty elements are skipped, as file
// systems do. "." and ".." are for clients to resolve, and an escaped slash is in no name. Letters with accents are put
// together (NFC), as the pool's names are: a Mac writes them apart, and a lock or property must know both spellings.
func (f *face) locate(u *url.URL) (p string, ok bool) {
	rest, ok := strings.CutPrefix(u.Path, f.opt.Prefix)
	if !ok || rest != "" && rest[0] != '/' || len(rest) > pathMax {
		return "", false
	}
	for name := range strings.SplitSeq(rest, "/") {
		if name == "." || name == ".." || strings.ContainsRune(name, 0) {
			return "", false
		}
	}
	if strings.Contains(strings.ToLower(u.RawPath), "%2f") {
		return "", false
	}
	p, _ = paths.Clean(rest) // what is no path all the same is for the FS to refuse, in its words
	return p, true
}

// href is the URL path of what is at p.
func (f *face) href(p string, folder bool) string {
	if folder && p != "/" {
		p += "/"
	}
	return (&url.URL{Path: f.opt.Prefix + p}).EscapedPath()
}

// failure is an answer that is not a success.
type failure struct {
	code int
	text string
	xml  string // a precondition code (RFC 4918 section 16) for the body, or ""
}

func (e *failure) Error() string { return e.text }

// status makes a failure of a status code and a text.
func status(code int, format string, args ...any) error {
	return &failure{code: code, text: fmt.Sprintf(format, args...)}
}

// precondition makes a failure whose body names what was not as it must be.
func precondition(code int, xml, text string) error {
	return &failure{code: code, text: text, xml: xml}
}

// statuses maps what an FS fails with; the first that fits counts.
var statuses = []struct {
	err  error
	code int
}{
	{fs.ErrNotExist, http.StatusNotFound},
	{fs.ErrExist, http.StatusMethodNotAllowed},
	{ErrIsFolder, http.StatusMethodNotAllowed},
	{ErrNotFolder, http.StatusConflict},
	{ErrSpace, http.StatusInsufficientStorage},
	{ErrName, http.StatusForbidden},
	{ErrClash, http.StatusConflict},
	{ErrReadOnly, http.StatusForbidden},
	{fs.ErrPermission, http.StatusForbidden},
	{ErrAway, http.StatusGatewayTimeout},
	{errLocksMax, http.StatusServiceUnavailable},
	{context.Canceled, 499}, // nobody reads it
	{context.DeadlineExceeded, http.StatusGatewayTimeout},
}

func statusOf(err error) int {
	var known *failure
	if errors.As(err, &known) {
		return known.code
	}
	for _, s := range statuses {
		if errors.Is(err, s.err) {
			return s.code
		}
	}
	return http.StatusInternalServerError
}

// fail answers for an error before the first byte of an answer.
func (f *face) fail(w http.ResponseWriter, r *http.Request, err error) {
	code := statusOf(err)
	if code >= 500 {
		f.opt.Log.Warn("webdav: a request failed", "method", r.Method, "path", wire.CleanText(strings.TrimPrefix(r.URL.Path, f.opt.Prefix)), "status", code, "err", err)
	}
	h := w.Header()
	for _, name := range []string{"Etag", "Last-Modified", "Content-Length", "Cache-Control", "Accept-Ranges"} {
		h.Del(name)
	}
	var known *failure
	if errors.As(err, &known) && known.xml != "" {
		h.Set("Content-Type", xmlType)
		w.WriteHeader(code)
		_, _ = io.WriteString(w, xmlHead+`<D:error xmlns:D="DAV:">`+known.xml+`</D:error>`)
		return
	}
	h.Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	if r.Method != http.MethodHead {
		_, _ = io.WriteString(w, wire.CleanText(err.Error())+"\n")
	}
}
