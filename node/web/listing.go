package web

import (
	"bytes"
	"fmt"
	"html/template"
	"net/http"
	"path"
	"time"

	"github.com/shoal-os/shoal/storage/chunk"
)

// listedMax is how many entries of a folder, or roots, one page shows.
const listedMax = 10_000

// ours is the policy for pages of our own: they have a style and nothing else.
const ours = "default-src 'none'; style-src 'unsafe-inline'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"

// page is what a listing shows.
type page struct {
	Title string
	Up    bool
	Car   bool // offer the folder as a CAR file
	Rows  []row
	More  int // entries that are not shown
}

type row struct {
	Name   string
	Href   string // "" for what cannot be opened
	Kind   string
	Size   string
	Target string
}

var pageTemplate = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{{.Title}}</title>
<style>
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color-scheme:light dark}
h1{font-size:1.25rem;overflow-wrap:anywhere}table{border-collapse:collapse;width:100%}
td{padding:.2rem .5rem;border-top:1px solid #8883;overflow-wrap:anywhere}td+td{text-align:right;white-space:nowrap}
a{text-decoration:none}a:hover{text-decoration:underline}p{opacity:.7}
</style>
<h1>{{.Title}}</h1>
<table>
{{- if .Up}}<tr><td><a href="../">../</a><td></tr>{{end}}
{{- range .Rows}}
<tr><td>{{if .Href}}<a href="{{.Href}}">{{.Name}}</a>{{else}}{{.Name}}{{end}}{{if .Target}} → {{.Target}}{{end}}<td>{{.Size}}</tr>
{{- end}}
</table>
{{- if .More}}<p>and {{.More}} more</p>{{end}}
{{- if .Car}}<p><a href="?format=car">all of it as a CAR file</a></p>{{end}}
</html>
`))

// serveListing shows what is in a folder. An index.html in it is listed like the
// rest: a page of a stranger is only shown to who opens it.
func serveListing(w http.ResponseWriter, r *http.Request, q *request, at int, id chunk.CID) error {
	dir := &q.content.Tree().Entries[at]
	p := page{Title: dir.Path, Up: dir.Path != "", Car: true}
	if p.Title == "" {
		if p.Title = q.content.Name(); p.Title == "" {
			p.Title = id.String()
		}
	}
	entries := q.content.List(at)
	for _, e := range entries[:min(len(entries), listedMax)] {
		p.Rows = append(p.Rows, rowOf(e))
	}
	p.More = len(entries) - len(p.Rows)
	return sendPage(w, r, p, etag(id, "listing"))
}

func rowOf(e *chunk.Entry) row {
	name := path.Base(e.Path)
	// "./" in front, so that a name with a colon is no scheme; the template
	// encodes the rest.
	x := row{Name: name, Href: "./" + escapeName(name), Size: sizeText(e.Size)}
	switch e.Kind {
	case chunk.Dir:
		x.Name, x.Href, x.Size = name+"/", x.Href+"/", ""
	case chunk.Symlink:
		x.Href, x.Target, x.Size = "", e.Target, ""
	}
	return x
}

// sendPage gives a page of our own.
func sendPage(w http.ResponseWriter, r *http.Request, p page, tag string) error {
	var b bytes.Buffer
	if err := pageTemplate.Execute(&b, p); err != nil {
		return fmt.Errorf("web: page: %w", err)
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", ours)
	h.Set("Cache-Control", "no-cache") // the page may look otherwise tomorrow
	h.Set("Vary", "Accept")
	if tag != "" {
		h.Set("Etag", tag)
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b.Bytes()))
	return nil
}

// sizeText is a size for people.
func sizeText(n int64) string {
	if n < 0 {
		return ""
	}
	value, unit := float64(n), 0
	for value >= 1024 && unit < 5 {
		value, unit = value/1024, unit+1
	}
	if unit == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %ciB", value, " KMGTP"[unit])
}
