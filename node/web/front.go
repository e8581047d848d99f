package web

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/shoal-os/shoal/dht/loopback"
	"github.com/shoal-os/shoal/storage/chunk"
)

// requestsMax bounds the requests that a Front passes on at a time.
const requestsMax = 48

// Front is a gateway's door on a loopback port. Any program on this machine can
// knock there and, through a browser, any page on the web. So each request must
// name a loopback host: a page whose own name was re-bound to 127.0.0.1 does not.
// Answers carry no permission for other origins, so what such a page asks for by
// address stays closed to it. And only the roots that are shown are served.
type Front struct {
	hosts []string
	roots func(context.Context) []chunk.Link
	next  http.Handler
	slots chan struct{}
}

// NewFront returns a front for a listener's address. roots are what is shown and
// served, asked for anew with each request; next is the gateway, perhaps that of
// another process.
func NewFront(addr net.Addr, roots func(context.Context) []chunk.Link, next http.Handler) (*Front, error) {
	hosts, err := loopback.Hosts(addr.String())
	return &Front{hosts: hosts, roots: roots, next: next, slots: make(chan struct{}, requestsMax)}, err
}

// ServeHTTP implements [http.Handler].
func (f *Front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !slices.Contains(f.hosts, strings.ToLower(r.Host)) {
		fail(w, http.StatusForbidden, "the Host header must be "+f.hosts[0])
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		fail(w, http.StatusMethodNotAllowed, "only GET and HEAD are answered here")
		return
	}
	select {
	case f.slots <- struct{}{}:
		defer func() { <-f.slots }()
	default:
		w.Header().Set("Retry-After", "1")
		fail(w, http.StatusServiceUnavailable, "too many requests at the same time")
		return
	}
	if r.URL.Path == "/" {
		f.index(w, r)
		return
	}
	f.pass(w, r)
}

// pass hands a request for content on, with the link of its root.
func (f *Front) pass(w http.ResponseWriter, r *http.Request) {
	rest, ok := strings.CutPrefix(r.URL.Path, prefix)
	if !ok {
		fail(w, http.StatusNotFound, "there is nothing; / lists what is served")
		return
	}
	r.Header.Del(LinkHeader)
	text, _, _ := strings.Cut(rest, "/")
	root, err := chunk.ParseCID(text)
	if err != nil && text != probe {
		fail(w, http.StatusBadRequest, err.Error())
		return
	}
	for _, link := range f.roots(r.Context()) {
		if link.Root == root {
			r.Header.Set(LinkHeader, link.String())
			break
		}
	}
	f.next.ServeHTTP(w, r)
}

// index shows the roots.
func (f *Front) index(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Referrer-Policy", "no-referrer")
	p := page{Title: "shoal"}
	links := f.roots(r.Context())
	for _, l := range links[:min(len(links), listedMax)] {
		p.Rows = append(p.Rows, row{Name: nameOf(l), Href: Path(l), Size: sizeText(l.Size)})
	}
	p.More = len(links) - len(p.Rows)
	if err := sendPage(w, r, p, ""); err != nil {
		fail(w, http.StatusInternalServerError, err.Error())
	}
}

func nameOf(l chunk.Link) string {
	if l.Name != "" {
		return l.Name
	}
	return l.Root.String()
}

// Path is where a link's root is on a gateway, with its name for what depends on
// how it ends.
func Path(l chunk.Link) string {
	p := prefix + l.Root.String()
	if l.Name != "" && l.Root.Defined() {
		p += "?filename=" + url.QueryEscape(l.Name)
	}
	return p
}

// escapeName encodes a name as one element of a path.
func escapeName(name string) string { return url.PathEscape(name) }
