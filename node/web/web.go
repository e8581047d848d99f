// Package web owns the HTTP face of what a peer can read: files and folders of
// a root under /ipfs/CID, for browsers and players, and the trustless forms of
// the IPFS gateway specifications (a raw block, a CAR stream) for programs.
//
// The bytes come from strangers, so nothing that they contain may act: pages are
// sandboxed, types are not guessed by the browser, no cookie is ever set. The
// [Gateway] answers for any root that its caller names; the [Front] stands before
// it on a loopback port, lets in only requests that are meant for it, and names
// the roots. Neither decides what is fetched from whom: that is storage's.
//
// Specifications: https://specs.ipfs.tech/http-gateways/path-gateway/ and
// https://specs.ipfs.tech/http-gateways/trustless-gateway/.
package web

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	"github.com/shoal-os/shoal/node/api/client"
	"github.com/shoal-os/shoal/storage"
	"github.com/shoal-os/shoal/storage/block"
	"github.com/shoal-os/shoal/storage/chunk"
)

// LinkHeader carries, from a Front to the Gateway behind it, the link of the root
// that is asked for. Without it the Gateway only gives single blocks of roots
// that it has open. A Front takes it off what comes from outside.
const LinkHeader = "Shoal-Link"

// Source opens roots for reading in place; a peer is one.
type Source interface {
	Open(ctx context.Context, link chunk.Link, opt storage.OpenOptions) (*storage.Content, error)
	// Holds reports whether opening a root would take nothing from the network.
	Holds(root chunk.CID) bool
}

// Gateway answers for the roots of a source. It is safe for concurrent use.
// Close it.
type Gateway struct {
	source Source
	log    *slog.Logger
	pool   *pool
}

// New returns a gateway to a source. log may be nil.
func New(source Source, log *slog.Logger) *Gateway {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Gateway{source: source, log: log, pool: newPool(source)}
}

// Close ends what is being read, and closes every root.
func (g *Gateway) Close() error {
	g.pool.close()
	return nil
}

// prefix is where content lies.
const prefix = "/ipfs/"

// ServeHTTP implements [http.Handler].
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin") // no page elsewhere may show it as its own
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		h.Set("Allow", "GET, HEAD")
		fail(w, http.StatusMethodNotAllowed, "only GET and HEAD are answered here")
		return
	}
	rest, ok := strings.CutPrefix(r.URL.Path, prefix)
	if !ok {
		fail(w, http.StatusNotFound, "content is at /ipfs/CID")
		return
	}
	text, path, _ := strings.Cut(rest, "/")
	form, err := formOf(r)
	if err != nil {
		failForm(w, err)
		return
	}
	if text == probe {
		serveProbe(w, r, form)
		return
	}
	root, err := chunk.ParseCID(text)
	if err != nil {
		fail(w, http.StatusBadRequest, err.Error())
		return
	}
	g.serve(w, r, &request{root: root, path: path, form: form})
}

// request is one request for something in a root.
type request struct {
	root    chunk.CID
	path    string // as in the URL, decoded; may end in a slash
	form    form
	content *storage.Content
}

// serve opens the root and answers in the form that is asked for.
func (g *Gateway) serve(w http.ResponseWriter, r *http.Request, q *request) {
	link, err := chunk.ParseLink(r.Header.Get(LinkHeader))
	if err != nil || link.Root != q.root {
		g.serveLoose(w, r, q)
		return
	}
	if onlyIfCached(r) && !g.source.Holds(q.root) {
		fail(w, http.StatusPreconditionFailed, "it is not here")
		return
	}
	c, release, err := g.pool.get(r.Context(), link)
	if err != nil {
		g.failOpen(w, r, err)
		return
	}
	defer release()
	q.content = c
	switch q.form.kind {
	case formRaw:
		err = g.serveRaw(w, r, q)
	case formCAR:
		err = g.serveCAR(w, r, q)
	default:
		err = g.serveEntry(w, r, q)
	}
	if err != nil {
		g.failOpen(w, r, err)
	}
}

// serveLoose gives a block, asked for by its own name, of a root that is open.
func (g *Gateway) serveLoose(w http.ResponseWriter, r *http.Request, q *request) {
	if q.form.kind != formRaw || strings.Trim(q.path, "/") != "" {
		fail(w, http.StatusNotFound, "that root is not served here")
		return
	}
	open := g.pool.all()
	defer func() {
		for _, h := range open {
			h.release()
		}
	}()
	for _, h := range open {
		data, err := h.content.Block(r.Context(), q.root)
		switch {
		case err == nil:
			sendBlock(w, r, q, q.root, data)
			return
		case !errors.Is(err, block.ErrNotFound):
			g.failOpen(w, r, err)
			return
		}
	}
	fail(w, http.StatusNotFound, "no root that is open here has that block")
}

// onlyIfCached is the client's wish not to wait for the network.
func onlyIfCached(r *http.Request) bool {
	return strings.Contains(strings.ToLower(r.Header.Get("Cache-Control")), "only-if-cached")
}

// failOpen answers for an error before the first byte. It is nothing when the
// client has gone.
func (g *Gateway) failOpen(w http.ResponseWriter, r *http.Request, err error) {
	status := http.StatusInternalServerError
	switch kind := client.KindOf(err); {
	case r.Context().Err() != nil:
		return
	case errors.Is(err, errBusy):
		w.Header().Set("Retry-After", "5")
		status = http.StatusServiceUnavailable
	case errors.Is(err, errClosed), errors.Is(err, storage.ErrClosed):
		status = http.StatusServiceUnavailable
	case errors.Is(err, errRange):
		status = http.StatusBadRequest
	case errors.Is(err, storage.ErrNoEntry), errors.Is(err, chunk.ErrNoEntry), errors.Is(err, block.ErrNotFound):
		status = http.StatusNotFound
	case kind == client.KindNotFound:
		status = http.StatusGatewayTimeout // somebody may have it, but nobody sent it
	case kind == client.KindCorrupt:
		status = http.StatusBadGateway
	default:
		g.log.Warn("a request failed", "path", r.URL.Path, "err", err)
	}
	fail(w, status, err.Error())
}

// fail answers with a line of text.
func fail(w http.ResponseWriter, status int, text string) {
	h := w.Header()
	for _, name := range []string{"Etag", "Cache-Control", "Content-Disposition", "Content-Length", "X-Ipfs-Path", "X-Ipfs-Roots"} {
		h.Del(name)
	}
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; sandbox")
	w.WriteHeader(status)
	_, _ = fmt.Fprintln(w, text)
}
