package mount

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/shoal-os/shoal/dht/loopback"
)

// Guard stands before a face at a listener's address. A Unix socket is guarded by its mode. A port of loopback can be
// reached by every user of the machine and, through a browser, by every page on the web, so there each request must
//   - name a loopback host (a page whose own name was re-bound to 127.0.0.1 does not),
//   - come from no page but our own (Origin, Sec-Fetch-Site), and
//   - carry the token (other users): as the password of Basic authentication, whatever the name, or as the first element
//     of the path. The latter is for Windows, whose own client sends no password over plain HTTP. Whoever uses it
//     serves the face under that prefix.
//
// The origin is looked at on the socket as well: nothing that has one belongs there. Other addresses are refused.
func Guard(addr net.Addr, token string, next http.Handler) (http.Handler, error) {
	g := &guard{token: token, next: next}
	if addr.Network() == "unix" {
		return g, nil
	}
	if token == "" {
		return nil, errors.New("mount: a port without a token")
	}
	var err error
	if g.hosts, err = loopback.Hosts(addr.String()); err != nil {
		return nil, fmt.Errorf("mount: %w", err)
	}
	return g, nil
}

type guard struct {
	hosts []string // nil on a Unix socket
	token string
	next  http.Handler
}

// ServeHTTP implements [http.Handler].
func (g *guard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case g.hosts != nil && !g.named(r.Host):
		refuse(w, http.StatusForbidden, "the Host header must be "+g.hosts[0])
	case !g.ownPage(r.Header):
		refuse(w, http.StatusForbidden, "requests from other web pages are refused")
	case g.hosts != nil && !g.authorized(r):
		w.Header().Set("WWW-Authenticate", `Basic realm="shoal", charset="UTF-8"`)
		refuse(w, http.StatusUnauthorized, "the password is the token that `shoal mount` has printed")
	default:
		g.next.ServeHTTP(w, r)
	}
}

func refuse(w http.ResponseWriter, code int, text string) {
	setHeaders(w.Header())
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = w.Write([]byte(text + "\n"))
}

func (g *guard) named(host string) bool { return slices.Contains(g.hosts, strings.ToLower(host)) }

// ownPage is false for what another origin's page has a browser send.
func (g *guard) ownPage(h http.Header) bool {
	switch h.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin":
	default:
		return false
	}
	origin := h.Get("Origin")
	if origin == "" {
		return true
	}
	u, err := url.Parse(origin)
	return err == nil && u.Scheme == "http" && g.named(u.Host)
}

func (g *guard) authorized(r *http.Request) bool {
	if _, password, ok := r.BasicAuth(); ok && g.is(password) {
		return true
	}
	first, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	return g.is(first)
}

func (g *guard) is(text string) bool {
	return subtle.ConstantTimeCompare([]byte(text), []byte(g.token)) == 1
}
