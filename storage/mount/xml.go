package mount

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"strconv"
)

// Bounds of the XML that clients send.
const (
	xmlMax      = 256 << 10 // bytes
	xmlDepthMax = 64
	xmlTokenMax = 16 << 10
)

const (
	xmlType = "application/xml; charset=utf-8"
	xmlHead = `<?xml version="1.0" encoding="utf-8"?>` + "\n"
)

// readXML reads a request's body, of at most limit bytes, and checks its form. An empty body is none.
func readXML(r *http.Request, limit int64) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, limit+1))
	if err != nil {
		return nil, status(http.StatusBadRequest, "the body did not arrive")
	}
	if int64(len(body)) > limit {
		return nil, status(http.StatusRequestEntityTooLarge, "the body is longer than %d bytes", limit)
	}
	if len(body) == 0 {
		return nil, nil
	}
	if err := checkXML(body); err != nil {
		return nil, status(http.StatusBadRequest, "the body cannot be read: %v", err)
	}
	return body, nil
}

// checkXML refuses what is not well-formed, too deep or too long, before a recursive decoder sees it. It also refuses a
// prefix that is bound to nothing (xmlns:a=""), which Namespaces in XML 1.0 forbids and Go's decoders let pass: litmus's
// propfind_invalid2.
func checkXML(body []byte) error {
	d := xml.NewDecoder(bytes.NewReader(body))
	depth, roots := 0, 0
	for n := 0; ; n++ {
		if n > xmlTokenMax {
			return errors.New("too long")
		}
		token, err := d.Token()
		if err == io.EOF {
			if roots != 1 {
				return errors.New("not one element")
			}
			return nil
		}
		if err != nil {
			return err
		}
		switch t := token.(type) {
		case xml.StartElement:
			if depth == 0 {
				roots++
			}
			if depth++; depth > xmlDepthMax {
				return errors.New("too deep")
			}
			for _, a := range t.Attr {
				if a.Name.Space == "xmlns" && a.Value == "" {
					return errors.New("a prefix that is bound to nothing")
				}
			}
		case xml.EndElement:
			depth--
		case xml.Directive:
			return errors.New("a document type")
		}
	}
}

// content is what an element holds, written so that it stands on its own: each element says its namespace itself, so
// that it means the same inside another document. (What ",innerxml" gives may use prefixes that only the client's had.)
type content []byte

// UnmarshalXML implements [xml.Unmarshaler].
func (c *content) UnmarshalXML(d *xml.Decoder, start xml.StartElement) error {
	var b bytes.Buffer
	for depth := 0; ; {
		token, err := d.Token()
		if err != nil {
			return err
		}
		switch t := token.(type) {
		case xml.StartElement:
			depth++
			writeStart(&b, t)
		case xml.EndElement:
			if depth--; depth < 0 {
				*c = b.Bytes()
				return nil
			}
			b.WriteString("</" + t.Name.Local + ">")
		case xml.CharData:
			_ = xml.EscapeText(&b, t)
		}
	}
}

// writeStart writes a start tag that binds what it uses itself. No element has a prefix, so the end tags need none.
func writeStart(b *bytes.Buffer, t xml.StartElement) {
	b.WriteString("<" + t.Name.Local + ` xmlns="` + escapeText(t.Name.Space) + `"`)
	prefixes := 0
	for _, a := range t.Attr {
		if a.Name.Space == "xmlns" || a.Name.Local == "xmlns" && a.Name.Space == "" {
			continue
		}
		name := a.Name.Local
		switch a.Name.Space {
		case "":
		case "xml", "http://www.w3.org/XML/1998/namespace":
			name = "xml:" + name
		default:
			prefixes++
			prefix := "a" + strconv.Itoa(prefixes)
			b.WriteString(` xmlns:` + prefix + `="` + escapeText(a.Name.Space) + `"`)
			name = prefix + ":" + name
		}
		b.WriteString(` ` + name + `="` + escapeText(a.Value) + `"`)
	}
	b.WriteString(">")
}

// escapeText makes a text stand for itself in XML, between tags or in quotes.
func escapeText(s string) string {
	var b bytes.Buffer
	_ = xml.EscapeText(&b, []byte(s)) // a Buffer does not fail
	return b.String()
}
