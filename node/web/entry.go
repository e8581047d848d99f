package web

import (
	"io"
	"mime"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/shoal-os/shoal/storage"
	"github.com/shoal-os/shoal/storage/chunk"
)

// sniffLen is what http.DetectContentType looks at.
const sniffLen = 512

// quiet is the policy for pages of strangers: they show, and do nothing.
const quiet = "sandbox; default-src 'none'; img-src 'self' data:; media-src 'self'; style-src 'self' 'unsafe-inline'; " +
	"font-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"

// serveEntry gives a file, a folder's listing or where a symbolic link points.
func (g *Gateway) serveEntry(w http.ResponseWriter, r *http.Request, q *request) error {
	at, err := q.content.Find(q.path)
	if err != nil {
		return err
	}
	e := &q.content.Tree().Entries[at]
	steps, err := q.content.Steps(q.path)
	if err != nil {
		return err
	}
	slash := strings.HasSuffix(r.URL.Path, "/")
	switch {
	case e.Kind == chunk.Dir && !slash:
		// Links in the listing are relative.
		u := url.URL{Path: r.URL.Path + "/", RawQuery: r.URL.RawQuery}
		w.Header().Set("Location", u.String())
		fail(w, http.StatusMovedPermanently, "the folder is at "+u.Path)
		return nil
	case e.Kind != chunk.Dir && slash && q.path != "":
		return storage.ErrNoEntry
	}
	describe(w, r, steps)
	id := steps[len(steps)-1]
	switch e.Kind {
	case chunk.Dir:
		return serveListing(w, r, q, at, id)
	case chunk.Symlink:
		h := w.Header()
		h.Set("Content-Type", "inode/symlink")
		h.Set("Etag", etag(id, ""))
		h.Set("Cache-Control", forever)
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(e.Target))
		return nil
	}
	return serveFile(w, r, q, at, id)
}

// serveFile gives a file, or the ranges of it that are asked for, as it arrives.
func serveFile(w http.ResponseWriter, r *http.Request, q *request, at int, id chunk.CID) error {
	f, err := q.content.OpenFile(r.Context(), at)
	if err != nil {
		return err
	}
	defer f.Close()
	name := fileName(r, q, at)
	kind, err := typeOf(name, f)
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("Etag", etag(id, ""))
	h.Set("Cache-Control", forever)
	h.Set("Vary", "Accept")
	if acts(kind) {
		h.Set("Content-Security-Policy", quiet)
	}
	dispose(h, r, name)
	http.ServeContent(w, r, "", time.Time{}, f)
	return nil
}

// fileName is what the answer calls the file: as the client asks, or as it is
// called in its folder, or in the link.
func fileName(r *http.Request, q *request, at int) string {
	if name := safeName(r.URL.Query().Get("filename")); name != "" {
		return name
	}
	if p := q.content.Tree().Entries[at].Path; p != "" {
		return path.Base(p)
	}
	return safeName(q.content.Name())
}

// safeName is name if it can be one, or else "".
func safeName(name string) string {
	if chunk.CheckName(name, "windows") != nil {
		return ""
	}
	return name
}

// dispose says whether the file is to be shown or saved, and its name.
func dispose(h http.Header, r *http.Request, name string) {
	q := r.URL.Query()
	save := q.Get("download") == "true" || q.Has("download") && q.Get("download") == ""
	switch {
	case save && name == "":
		h.Set("Content-Disposition", "attachment")
	case save:
		h.Set("Content-Disposition", disposition("attachment", name))
	case q.Has("filename") && name != "":
		h.Set("Content-Disposition", disposition("inline", name))
	}
}

// attach says that a trustless answer is to be saved, never shown.
func attach(h http.Header, r *http.Request, name string) {
	if asked := safeName(r.URL.Query().Get("filename")); asked != "" {
		name = asked
	}
	h.Set("Content-Disposition", disposition("attachment", name))
}

// disposition writes a Content-Disposition with a plain name for old clients
// and the true one (RFC 6266).
func disposition(kind, name string) string {
	plain := strings.Map(func(r rune) rune {
		if r < 0x20 || r > 0x7e || r == '"' || r == '\\' || r == '%' {
			return '_'
		}
		return r
	}, name)
	text := kind + `; filename="` + plain + `"`
	if plain != name {
		text += "; filename*=UTF-8''" + strings.ReplaceAll(url.QueryEscape(name), "+", "%20")
	}
	return text
}

// media are types that systems without a table of their own do not know, and that
// players need.
var media = map[string]string{
	".avi": "video/x-msvideo", ".flac": "audio/flac", ".m3u8": "application/vnd.apple.mpegurl", ".m4a": "audio/mp4",
	".m4v": "video/mp4", ".md": "text/markdown; charset=utf-8", ".mka": "audio/x-matroska", ".mkv": "video/x-matroska",
	".mov": "video/quicktime", ".mp3": "audio/mpeg", ".mp4": "video/mp4", ".oga": "audio/ogg", ".ogg": "audio/ogg",
	".ogv": "video/ogg", ".opus": "audio/ogg", ".srt": "text/plain; charset=utf-8", ".ts": "video/mp2t",
	".txt": "text/plain; charset=utf-8", ".vtt": "text/vtt; charset=utf-8", ".wav": "audio/wav", ".webm": "video/webm",
	".car": typeCAR, ".epub": "application/epub+zip", ".gz": "application/gzip", ".tar": "application/x-tar", ".zip": "application/zip",
}

// typeOf tells a file's type by its name or, if that says nothing, by how it begins.
func typeOf(name string, f io.ReaderAt) (string, error) {
	ext := strings.ToLower(path.Ext(name))
	if t := media[ext]; t != "" {
		return t, nil
	}
	if t := mime.TypeByExtension(ext); t != "" {
		return t, nil
	}
	buf := make([]byte, sniffLen)
	n, err := f.ReadAt(buf, 0)
	if err != nil && err != io.EOF {
		return "", err
	}
	return http.DetectContentType(buf[:n]), nil
}

// acts reports whether a browser would let a file of this type do things.
func acts(kind string) bool {
	base, _, err := mime.ParseMediaType(kind)
	if err != nil {
		return true
	}
	switch base {
	case "text/html", "application/xhtml+xml", "text/xml", "application/xml", "application/pdf", "image/svg+xml", "text/xsl":
		return true
	}
	return strings.HasSuffix(base, "+xml")
}
