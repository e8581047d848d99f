package mount

import (
	"bytes"
	"encoding/xml"
	"io"
	"strings"
	"testing"
)

func TestCheckXML(t *testing.T) {
	for _, good := range []string{`<a/>`, `<?xml version="1.0"?><a xmlns="x"><b:c xmlns:b="y">text</b:c><!-- c --></a>`} {
		if err := checkXML([]byte(good)); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{
		``, `text`, `<a>`, `<a></b>`, `<a/><b/>`, `<a xmlns:p=""/>`, `<a><b xmlns:p=""/></a>`, `<!DOCTYPE a [<!ENTITY x "y">]><a/>`,
		`<a>&x;</a>`, strings.Repeat("<a>", xmlDepthMax+1) + strings.Repeat("</a>", xmlDepthMax+1),
		"<a>" + strings.Repeat("<b/>", xmlTokenMax) + "</a>", "<a>\x01</a>",
	} {
		if checkXML([]byte(bad)) == nil {
			t.Errorf("%.60s passed", bad)
		}
	}
}

// TestOwnerStandsAlone: the prefixes of a client's document are not those of ours.
func TestOwnerStandsAlone(t *testing.T) {
	want, err := parseLockInfo([]byte(`<X:lockinfo xmlns:X="DAV:" xmlns:y="urn:y"><X:lockscope><X:shared/></X:lockscope>` +
		`<X:locktype><X:write/></X:locktype><X:owner><X:href y:k="1" l="&quot;">me &amp; you</X:href></X:owner></X:lockinfo>`))
	if err != nil {
		t.Fatal(err)
	}
	const owner = `<href xmlns="DAV:" xmlns:a1="urn:y" a1:k="1" l="&#34;">me &amp; you</href>`
	if !want.shared || want.owner != owner {
		t.Errorf("%+v", want)
	}
	for _, bad := range []string{
		`<lockinfo/>`, `<D:lockinfo xmlns:D="DAV:"/>`,
		`<lockinfo xmlns="DAV:"><lockscope><exclusive/><shared/></lockscope><locktype><write/></locktype></lockinfo>`,
		`<lockinfo xmlns="DAV:"><lockscope><exclusive/></lockscope></lockinfo>`,
		`<lockinfo xmlns="DAV:"><lockscope><exclusive/></lockscope><locktype><write/></locktype><owner>` +
			strings.Repeat("x", ownerMax+1) + `</owner></lockinfo>`,
	} {
		if _, err := parseLockInfo([]byte(bad)); err == nil {
			t.Errorf("%.60s passed", bad)
		}
	}
}

// flat writes tokens in a form that knows no prefixes.
func flat(t *testing.T, text string) string {
	var b strings.Builder
	d := xml.NewDecoder(strings.NewReader(text))
	for {
		token, err := d.Token()
		if err == io.EOF {
			return b.String()
		}
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		switch x := token.(type) {
		case xml.StartElement:
			b.WriteString("<" + x.Name.Space + "|" + x.Name.Local)
			for _, a := range x.Attr {
				if a.Name.Space != "xmlns" && (a.Name.Space != "" || a.Name.Local != "xmlns") {
					b.WriteString(" " + a.Name.Space + "|" + a.Name.Local + "=" + a.Value)
				}
			}
			b.WriteString(">")
		case xml.EndElement:
			b.WriteString("</>")
		case xml.CharData:
			b.Write(x)
		}
	}
}

// FuzzXML checks that what passes checkXML is put into a document of ours with its meaning, and keeps it well-formed.
func FuzzXML(f *testing.F) {
	f.Add([]byte(`<a xmlns="x"><b:c xmlns:b="y" b:d="e">text &lt;</b:c><!-- c --></a>`))
	f.Add([]byte(`<X:o xmlns:X="DAV:"><X:href xml:lang="de">m</X:href></X:o>`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if len(body) > xmlMax || checkXML(body) != nil {
			return
		}
		parseAsked(body)
		_, _ = parseLockInfo(body)
		var c struct {
			Inner content `xml:",any"`
		}
		if xml.Unmarshal([]byte("<o>"+string(trimHead(body))+"</o>"), &c) != nil {
			return
		}
		ours := `<D:prop xmlns:D="DAV:">` + string(c.Inner) + `</D:prop>`
		if err := checkXML([]byte(ours)); err != nil && !strings.Contains(err.Error(), "too") {
			t.Fatalf("%q of %q: %v", ours, body, err)
		}
		var again struct {
			Inner content `xml:",any"`
		}
		if err := xml.Unmarshal([]byte("<o><x>"+string(c.Inner)+"</x></o>"), &again); err != nil {
			t.Fatal(err)
		}
		if flat(t, string(again.Inner)) != flat(t, string(c.Inner)) {
			t.Fatalf("%q became %q", c.Inner, again.Inner)
		}
	})
}

// trimHead takes an XML declaration away, so that the rest can stand inside an element.
func trimHead(b []byte) []byte {
	b = bytes.TrimSpace(b)
	if i := bytes.Index(b, []byte("?>")); i >= 0 && bytes.HasPrefix(b, []byte("<?xml")) {
		return b[i+2:]
	}
	return b
}
