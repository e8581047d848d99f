package report

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
)

//go:embed page.html
var pageText string

// WriteHTML writes the report as one page that needs no other file and no network. The report itself is in it, as JSON.
func (r *Report) WriteHTML(w io.Writer) error {
	raw, err := json.Marshal(r) // escapes <, > and &, so that it can stand in a script element
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	page, err := template.New("page").Funcs(template.FuncMap{
		"bytes":   Bytes,
		"seconds": func(t float64) string { return fmt.Sprintf("%.1f", t) },
	}).Parse(pageText)
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return page.Execute(w, struct {
		*Report
		Lines drawing
		Raw   template.JS
	}{r, r.draw(), template.JS(raw)})
}
