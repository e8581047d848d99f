package web

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/shoal-os/shoal/storage"
	"github.com/shoal-os/shoal/storage/chunk"
)

const (
	// forever is the age that the specifications give for what cannot change.
	forever = "public, max-age=29030400, immutable"

	// probe is the empty identity CID, by which clients find out what a gateway
	// can do (trustless gateway, "Dedicated Probe Paths").
	probe    = "bafkqaaa"
	probeCAR = "\x19\xa2\x65roots\x81\xd8\x2a\x45\x00\x01\x55\x00\x00\x67version\x01"
)

// serveRaw gives the block that the path leads to.
func (g *Gateway) serveRaw(w http.ResponseWriter, r *http.Request, q *request) error {
	steps, err := q.content.Steps(q.path)
	if err != nil {
		return err
	}
	id := steps[len(steps)-1]
	data, err := q.content.Block(r.Context(), id)
	if err != nil {
		return err
	}
	describe(w, r, steps)
	sendBlock(w, r, q, id, data)
	return nil
}

// sendBlock gives a block that is in memory; Range and If-None-Match work on it.
func sendBlock(w http.ResponseWriter, r *http.Request, q *request, id chunk.CID, data []byte) {
	h := w.Header()
	h.Set("Content-Type", typeRaw)
	h.Set("Etag", etag(id, "raw"))
	h.Set("Cache-Control", forever)
	varyBy(h, q.form)
	attach(h, r, id.String()+".bin")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
}

// serveCAR streams blocks, depth first.
func (g *Gateway) serveCAR(w http.ResponseWriter, r *http.Request, q *request) error {
	steps, err := q.content.Steps(q.path)
	if err != nil {
		return err
	}
	at, err := q.content.Find(q.path)
	if err != nil {
		return err
	}
	opt := storage.CarOptions{Path: q.path, Scope: q.form.scope, Bytes: q.form.bytes, Dups: q.form.dups}
	if err := checkRange(q.form.bytes, &q.content.Tree().Entries[at]); err != nil {
		return err
	}
	tag := etag(q.root, "car."+q.form.digest(q.path))
	h := w.Header()
	describe(w, r, steps)
	h.Set("Content-Type", typeCAR+"; version=1; order=dfs; dups="+yesNo(q.form.dups))
	h.Set("Etag", tag)
	h.Set("Cache-Control", forever)
	h.Set("Accept-Ranges", "none")
	varyBy(h, q.form)
	attach(h, r, steps[len(steps)-1].String()+".car")
	if notModified(w, r, tag) || r.Method == http.MethodHead {
		return nil
	}
	out := &watched{w: w}
	if err := q.content.WriteCAR(r.Context(), out, opt); err != nil {
		if !out.begun {
			return err
		}
		// A stream that simply ended would look whole.
		g.log.Debug("a CAR stream ended early", "root", q.root, "err", err)
		panic(http.ErrAbortHandler)
	}
	return nil
}

// checkRange refuses a range that is wholly outside of a file (the size is known).
func checkRange(b *storage.ByteRange, e *chunk.Entry) error {
	if b == nil || e.Kind != chunk.File {
		return nil
	}
	if b.From >= e.Size && e.Size > 0 || b.To < 0 && b.To+e.Size < 0 {
		return fmt.Errorf("%w: the file has %d bytes", errRange, e.Size)
	}
	return nil
}

// digest tells CAR streams of one root apart.
func (f form) digest(path string) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\n%d %v %v", strings.Trim(path, "/"), f.scope, f.bytes, f.dups))
	scope := [...]string{storage.ScopeAll: "all", storage.ScopeEntity: "entity", storage.ScopeBlock: "block"}[f.scope]
	return fmt.Sprintf("%s.%x", scope, sum[:8])
}

// serveProbe answers for the empty identity CID.
func serveProbe(w http.ResponseWriter, r *http.Request, f form) {
	body := ""
	switch f.kind {
	case formRaw:
		w.Header().Set("Content-Type", typeRaw)
	case formCAR:
		w.Header().Set("Content-Type", typeCAR+"; version=1; order=dfs; dups=n")
		body = probeCAR
	default:
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	}
	if r.Method == http.MethodGet {
		_, _ = w.Write([]byte(body))
	}
}

// describe sets the headers that say what the path went through.
func describe(w http.ResponseWriter, r *http.Request, steps []chunk.CID) {
	names := make([]string, len(steps))
	for i, s := range steps {
		names[i] = s.String()
	}
	w.Header().Set("X-Ipfs-Path", r.URL.EscapedPath())
	w.Header().Set("X-Ipfs-Roots", strings.Join(names, ","))
}

// varyBy tells caches that the Accept header decided.
func varyBy(h http.Header, f form) {
	if !f.named {
		h.Set("Vary", "Accept")
	}
}

func etag(id chunk.CID, suffix string) string {
	if suffix != "" {
		suffix = "." + suffix
	}
	return `"` + id.String() + suffix + `"`
}

// notModified answers 304 when the client has it already.
func notModified(w http.ResponseWriter, r *http.Request, tag string) bool {
	for part := range strings.SplitSeq(r.Header.Get("If-None-Match"), ",") {
		part = strings.TrimPrefix(strings.TrimSpace(part), "W/")
		if part == tag || part == "*" {
			w.Header().Del("Content-Type")
			w.WriteHeader(http.StatusNotModified)
			return true
		}
	}
	return false
}

func yesNo(b bool) string {
	if b {
		return "y"
	}
	return "n"
}

// watched knows whether the answer has begun, and passes it on at once.
type watched struct {
	w     http.ResponseWriter
	begun bool
}

func (x *watched) Write(p []byte) (int, error) {
	x.begun = true
	n, err := x.w.Write(p)
	if err == nil {
		err = http.NewResponseController(x.w).Flush()
	}
	return n, err
}
