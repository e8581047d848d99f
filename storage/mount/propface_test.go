package mount_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoal-os/shoal/storage/mount"
)

// setProp is the body of a PROPPATCH that sets one property.
func setProp(space, name, value string) string {
	return fmt.Sprintf(`<D:propertyupdate xmlns:D="DAV:"><D:set><D:prop><%s xmlns=%q>%s</%s></D:prop></D:set></D:propertyupdate>`,
		name, space, value, name)
}

// getProp is the body of a PROPFIND for one property.
func getProp(space, name string) string {
	return fmt.Sprintf(`<D:propfind xmlns:D="DAV:"><D:prop><%s xmlns=%q/></D:prop></D:propfind>`, name, space)
}

// patch sets a property and checks the status inside the answer.
func (c *client) patch(code int, path, space, name, value string) {
	c.Helper()
	text := c.want(207, "PROPPATCH", path, setProp(space, name, value)).Body.String()
	if !strings.Contains(text, fmt.Sprintf("HTTP/1.1 %d ", code)) {
		c.Errorf("PROPPATCH %s %s %s: %s; want %d", path, name, value, text, code)
	}
}

// prop asks for a property; "" if there is none.
func (c *client) prop(path, space, name string) string {
	c.Helper()
	text := c.want(207, "PROPFIND", path, getProp(space, name), "Depth: 0").Body.String()
	if !strings.Contains(text, "200 OK") {
		return ""
	}
	_, text, _ = strings.Cut(text, "<D:prop>")
	_, text, _ = strings.Cut(text, ">")
	text, _, _ = strings.Cut(text, "</"+name+">")
	text, _, _ = strings.Cut(text, "</D:"+name+">")
	return text
}

func TestDeadProps(t *testing.T) {
	file := filepath.Join(t.TempDir(), "props")
	c := newClient(t, mount.Options{PropsFile: file})
	c.want(201, "MKCOL", "/d", "")
	c.want(201, "PUT", "/d/f", "x")
	c.patch(200, "/d/f", "urn:x", "p", "one <b xmlns='urn:y'>two</b>")
	c.patch(200, "/d", "urn:x", "p", "folder")
	const want = `one <b xmlns="urn:y">two</b>`
	if got := c.prop("/d/f", "urn:x", "p"); got != want {
		t.Errorf("it is %q", got)
	}
	c.want(204, "PUT", "/d/f", "y") // the property is the file's, whatever is in it
	c.want(201, "COPY", "/d", "", "Destination: /e")
	c.want(201, "COPY", "/d", "", "Destination: /shallow", "Depth: 0")
	c.want(201, "MOVE", "/d", "", "Destination: /g")
	c.want(201, "MKCOL", "/d", "")
	c.want(201, "PUT", "/d/f", "new")
	check := func(c *client) {
		t.Helper()
		for p, want := range map[string]string{
			"/e/f": want, "/g/f": want, "/e": "folder", "/g": "folder", "/shallow": "folder", "/d": "", "/d/f": "",
		} {
			if got := c.prop(p, "urn:x", "p"); got != want {
				t.Errorf("%s has %q; want %q", p, got, want)
			}
		}
	}
	check(c)
	// Another run of the same face reads what is kept, even if the last line was cut off.
	log, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = log.WriteString(`{"path":"/g/f","pro`)
	_ = log.Close()
	check(&client{T: t, face: mount.Handler(c.fake, mount.Options{PropsFile: file}), fake: c.fake})
	c.want(204, "DELETE", "/e", "")
	c.want(201, "MKCOL", "/e", "")
	if got := c.prop("/e", "urn:x", "p"); got != "" {
		t.Errorf("a folder of the same name has inherited %q", got)
	}
}

// TestPropsAreBounded, for one file and for all, and what did not fit changes nothing.
func TestPropsAreBounded(t *testing.T) {
	c := newClient(t, mount.Options{})
	c.want(201, "PUT", "/f", "x")
	c.patch(200, "/f", "urn:x", "p", "before")
	c.patch(507, "/f", "urn:x", "p", strings.Repeat("x", 33<<10))
	if got := c.prop("/f", "urn:x", "p"); got != "before" {
		t.Errorf("it is %.40q", got)
	}
	full := false
	for i := range 300 {
		path := fmt.Sprintf("/f%d", i)
		c.want(201, "PUT", path, "")
		text := c.want(207, "PROPPATCH", path, setProp("urn:x", "p", strings.Repeat("x", 31<<10))).Body.String()
		full = full || strings.Contains(text, "507 ")
	}
	if !full {
		t.Error("there was room for all")
	}
	c.patch(200, "/f0", "urn:x", "p", "less")
}

func TestTimesByProperty(t *testing.T) {
	c := newClient(t, mount.Options{})
	c.want(201, "PUT", "/f", "x")
	c.want(201, "MKCOL", "/d", "")
	const ms = "urn:schemas-microsoft-com:"
	c.patch(200, "/f", ms, "Win32LastModifiedTime", "Tue, 14 Nov 2023 22:13:20 GMT")
	c.patch(200, "/d", ms, "Win32LastModifiedTime", "Tue, 14 Nov 2023 22:13:20 GMT")
	if got := c.prop("/f", "DAV:", "getlastmodified"); got != "Tue, 14 Nov 2023 22:13:20 GMT" {
		t.Errorf("it is %q", got)
	}
	if got := c.prop("/f", ms, "Win32LastModifiedTime"); got != "Tue, 14 Nov 2023 22:13:20 GMT" {
		t.Errorf("for Windows it is %q", got)
	}
	c.patch(200, "/f", ms, "Win32CreationTime", "Tue, 14 Nov 2023 22:13:20 GMT")
	c.patch(200, "/f", ms, "Win32FileAttributes", "00000022")
	if got := c.prop("/f", ms, "Win32FileAttributes"); got != "00000022" {
		t.Errorf("the attributes are %q", got)
	}
	c.patch(200, "/f", "DAV:", "lastmodified", "1600000000")
	info, err := c.fake.Stat(t.Context(), "/f")
	if err != nil || !info.ModTime.Equal(time.Unix(1600000000, 0)) {
		t.Errorf("%+v, %v", info, err)
	}
	for name, value := range map[string]string{"Win32LastModifiedTime": "yesterday", "lastmodified": "-1"} {
		space := ms
		if name == "lastmodified" {
			space = "DAV:"
		}
		c.patch(409, "/f", space, name, value)
	}
	c.patch(403, "/f", "DAV:", "getetag", "x")
	c.patch(403, "/f", "DAV:", "quota-used-bytes", "1")
}

// TestListing is the whole answer to what file managers ask.
func TestListing(t *testing.T) {
	c := newClient(t, mount.Options{Prefix: "/dav"})
	c.fake.Quota = 1000
	c.want(201, "MKCOL", "/dav/a&b%20c", "")
	c.want(201, "PUT", "/dav/%3Cf%3E.txt", "hello", "X-OC-Mtime: 1700000000")
	text := c.want(207, "PROPFIND", "/dav/", "", "Depth: 1").Body.String()
	for _, want := range []string{
		"<D:href>/dav/</D:href>", "<D:href>/dav/a&amp;b%20c/</D:href>", "<D:href>/dav/%3Cf%3E.txt</D:href>",
		"<D:displayname>&lt;f&gt;.txt</D:displayname>", "<D:getcontentlength>5</D:getcontentlength>",
		"<D:getcontenttype>text/plain; charset=utf-8</D:getcontenttype>", "<D:getlastmodified>Tue, 14 Nov 2023 22:13:20 GMT</D:getlastmodified>",
		"<D:creationdate>2023-11-14T22:13:20Z</D:creationdate>", `<D:resourcetype><D:collection xmlns:D="DAV:"/></D:resourcetype>`,
		"<D:supportedlock>", "<D:getetag>",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in %s", want, text)
		}
	}
	if strings.Count(text, "<D:supportedlock>") != 3 || strings.Contains(text, "quota") || strings.Contains(text, "0001") {
		t.Errorf("%s", text)
	}
	if locks := c.prop("/dav/", "DAV:", "supportedlock"); !strings.Contains(locks, "shared") || !strings.Contains(locks, "exclusive") {
		t.Errorf("supportedlock is %s", locks)
	}
	if free := c.prop("/dav/", "DAV:", "quota-available-bytes"); free != "995" {
		t.Errorf("%s bytes are free", free)
	}
	if used := c.prop("/dav/", "DAV:", "quota-used-bytes"); used != "5" {
		t.Errorf("%s bytes are used", used)
	}
	if text := c.want(207, "PROPFIND", "/dav/", "", "Depth: 0").Body.String(); strings.Count(text, "<D:response>") != 1 {
		t.Errorf("%s", text)
	}
}
