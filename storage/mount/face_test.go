package mount_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/shoal-os/shoal/storage/mount"
	"github.com/shoal-os/shoal/storage/mount/mounttest"
)

// client asks a face without a network.
type client struct {
	*testing.T
	face http.Handler
	fake *mounttest.Fake
}

func newClient(t *testing.T, opt mount.Options) *client {
	fake := mounttest.NewFake()
	return &client{T: t, face: mount.Handler(fake, opt), fake: fake}
}

// do sends a request. headers are "Name: value".
func (c *client) do(method, path string, body io.Reader, headers ...string) *httptest.ResponseRecorder {
	c.Helper()
	r := httptest.NewRequestWithContext(c.Context(), method, "http://pool"+path, body)
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Add(name, value)
	}
	w := httptest.NewRecorder()
	c.face.ServeHTTP(w, r)
	return w
}

// want sends a request and checks the status.
func (c *client) want(code int, method, path, body string, headers ...string) *httptest.ResponseRecorder {
	c.Helper()
	w := c.do(method, path, strings.NewReader(body), headers...)
	if w.Code != code {
		c.Errorf("%s %s %v: %d %s; want %d", method, path, headers, w.Code, w.Body, code)
	}
	return w
}

const lockBody = `<lockinfo xmlns="DAV:"><lockscope><exclusive/></lockscope><locktype><write/></locktype><owner>me</owner></lockinfo>`

// lock locks a path, and returns the token in angle brackets.
func (c *client) lock(path string, headers ...string) string {
	c.Helper()
	w := c.do("LOCK", path, strings.NewReader(lockBody), headers...)
	if w.Code != http.StatusOK && w.Code != http.StatusCreated {
		c.Fatalf("LOCK %s: %d %s", path, w.Code, w.Body)
	}
	return w.Header().Get("Lock-Token")
}

func TestPutAndGet(t *testing.T) {
	c := newClient(t, mount.Options{Prefix: "/dav"})
	w := c.want(201, "PUT", "/dav/a.txt", "hello", "X-OC-Mtime: 1700000000.25")
	tag := w.Header().Get("Etag")
	if tag == "" || w.Header().Get("X-OC-Mtime") != "accepted" {
		t.Errorf("PUT: %v", w.Header())
	}
	w = c.want(200, "GET", "/dav/a.txt", "")
	if w.Body.String() != "hello" || w.Header().Get("Etag") != tag || w.Header().Get("Content-Type") != "text/plain; charset=utf-8" ||
		w.Header().Get("Last-Modified") != "Tue, 14 Nov 2023 22:13:20 GMT" || w.Header().Get("Content-Length") != "5" {
		t.Errorf("GET: %q %v", w.Body, w.Header())
	}
	if w = c.want(206, "GET", "/dav/a.txt", "", "Range: bytes=1-3"); w.Body.String() != "ell" {
		t.Errorf("range: %q", w.Body)
	}
	if w = c.want(200, "HEAD", "/dav/a.txt", ""); w.Body.Len() != 0 || w.Header().Get("Content-Length") != "5" {
		t.Errorf("HEAD: %q %v", w.Body, w.Header())
	}
	c.want(416, "GET", "/dav/a.txt", "", "Range: bytes=9-")
	c.want(304, "GET", "/dav/a.txt", "", "If-None-Match: "+tag)
	c.want(204, "PUT", "/dav/a.txt", "other")
	c.want(200, "GET", "/dav/a.txt", "", "If-None-Match: "+tag)
	c.want(204, "PUT", "/dav/a.txt", "", "Last-Modified: Tue, 14 Nov 2023 22:13:20 GMT")
	if w = c.want(200, "GET", "/dav/a.txt", ""); w.Body.Len() != 0 || w.Header().Get("Last-Modified") != "Tue, 14 Nov 2023 22:13:20 GMT" {
		t.Errorf("empty: %q %v", w.Body, w.Header())
	}
	c.want(201, "PUT", "/dav/a%20b%23%3F%25.html", "<script>")
	w = c.want(200, "GET", "/dav/a%20b%23%3F%25.html", "")
	if !strings.HasPrefix(w.Header().Get("Content-Security-Policy"), "sandbox;") || w.Header().Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("a page may act: %v", w.Header())
	}
}

func TestStatuses(t *testing.T) {
	c := newClient(t, mount.Options{Prefix: "/dav"})
	c.fake.Quota = 100
	c.want(201, "MKCOL", "/dav/d", "")
	c.want(201, "PUT", "/dav/f", "x")
	for _, s := range []struct {
		code         int
		method, path string
		body         string
		headers      []string
	}{
		{404, "GET", "/dav/none", "", nil}, {404, "GET", "/f", "", nil}, {404, "GET", "/davf", "", nil}, {404, "GET", "/dav/f/x", "", nil},
		{404, "GET", "/dav/d/../f", "", nil}, {404, "GET", "/dav/d%2Ff", "", nil}, {404, "GET", "/dav/./f", "", nil}, {200, "GET", "/dav//f", "", nil},
		{405, "GET", "/dav/d/", "", nil}, {200, "HEAD", "/dav/d", "", nil}, {405, "POST", "/dav/f", "", nil}, {405, "PATCH", "/dav/f", "", nil},
		{405, "PUT", "/dav/d", "x", nil}, {405, "PUT", "/dav/new/", "x", nil}, {409, "PUT", "/dav/none/f", "x", nil}, {409, "PUT", "/dav/f/f", "x", nil},
		{400, "PUT", "/dav/f", "x", []string{"Content-Range: bytes 0-0/5"}}, {507, "PUT", "/dav/big", strings.Repeat("x", 101), nil},
		{403, "PUT", "/dav/a:b", "x", nil}, {409, "PUT", "/dav/F", "x", nil}, {412, "PUT", "/dav/f", "x", []string{"If-None-Match: *"}},
		{412, "PUT", "/dav/new", "x", []string{"If-Match: *"}}, {412, "PUT", "/dav/f", "x", []string{`If-Match: "y", W/"z"`}},
		{412, "PUT", "/dav/f", "x", []string{"If-Unmodified-Since: Tue, 14 Nov 2023 22:13:20 GMT"}},
		{405, "MKCOL", "/dav/d", "", nil}, {405, "MKCOL", "/dav/f", "", nil}, {409, "MKCOL", "/dav/none/d", "", nil}, {415, "MKCOL", "/dav/new", "<x/>", nil},
		{405, "MKCOL", "/dav", "", nil}, {409, "MKCOL", "/dav/D", "", nil}, {403, "MKCOL", "/dav/a%5Cb", "", nil},
		{404, "DELETE", "/dav/none", "", nil}, {403, "DELETE", "/dav/", "", nil}, {400, "DELETE", "/dav/d", "", []string{"Depth: 0"}},
		{400, "COPY", "/dav/f", "", nil}, {400, "COPY", "/dav/f", "", []string{"Destination: g"}}, {403, "COPY", "/dav/f", "", []string{"Destination: /dav/f"}},
		{502, "COPY", "/dav/f", "", []string{"Destination: http://other/dav/g"}}, {502, "COPY", "/dav/f", "", []string{"Destination: http://pool/g"}},
		{502, "COPY", "/dav/f", "", []string{"Destination: /dav/../g"}}, {409, "COPY", "/dav/f", "", []string{"Destination: /dav/none/g"}},
		{404, "COPY", "/dav/none", "", []string{"Destination: /dav/g"}}, {412, "COPY", "/dav/f", "", []string{"Destination: /dav/d", "Overwrite: F"}},
		{403, "COPY", "/dav/d", "", []string{"Destination: /dav/d/e"}}, {403, "MOVE", "/dav/d", "", []string{"Destination: /dav/d/e"}},
		{400, "COPY", "/dav/f", "", []string{"Destination: /dav/g", "Depth: 1"}}, {400, "MOVE", "/dav/f", "", []string{"Destination: /dav/g", "Depth: 0"}},
		{400, "COPY", "/dav/f", "", []string{"Destination: /dav/g", "Overwrite: x"}}, {403, "MOVE", "/dav/", "", []string{"Destination: /dav/g"}},
		{403, "COPY", "/dav/f", "", []string{"Destination: /dav/"}}, {403, "MOVE", "/dav/f", "", []string{"Destination: /dav/a:b"}},
		{403, "PROPFIND", "/dav/", "", nil}, {403, "PROPFIND", "/dav/", "", []string{"Depth: infinity"}}, {207, "PROPFIND", "/dav/f", "", nil},
		{400, "PROPFIND", "/dav/", "", []string{"Depth: 2"}}, {404, "PROPFIND", "/dav/none", "", []string{"Depth: 1"}},
		{400, "PROPFIND", "/dav/", "<x", []string{"Depth: 1"}}, {413, "PROPFIND", "/dav/", strings.Repeat(" ", 300<<10), []string{"Depth: 1"}},
		{404, "PROPPATCH", "/dav/none", "", nil}, {400, "PROPPATCH", "/dav/f", "<x/>", nil},
		{400, "LOCK", "/dav/f", "<x/>", nil}, {400, "LOCK", "/dav/f", "", nil}, {400, "LOCK", "/dav/f", lockBody, []string{"Depth: 1"}},
		{409, "LOCK", "/dav/none/f", lockBody, nil}, {412, "LOCK", "/dav/f", "", []string{"If: (<urn:x>)"}},
		{400, "UNLOCK", "/dav/f", "", nil}, {409, "UNLOCK", "/dav/f", "", []string{"Lock-Token: <urn:x>"}},
		{400, "PUT", "/dav/f", "x", []string{"If: ("}}, {412, "PUT", "/dav/f", "x", []string{`If: (["no"])`}}, {204, "PUT", "/dav/f", "x", []string{`If: (Not ["no"])`}},
		{200, "OPTIONS", "/", "", nil}, {200, "OPTIONS", "/dav/none", "", nil},
	} {
		c.want(s.code, s.method, s.path, s.body, s.headers...)
	}
	if got := c.want(200, "GET", "/dav/f", "").Body.String(); got != "x" {
		t.Errorf("after all that: %q", got)
	}
	w := c.want(200, "OPTIONS", "/dav/", "")
	if w.Header().Get("DAV") != "1, 2" || w.Header().Get("MS-Author-Via") != "DAV" || !strings.Contains(w.Header().Get("Allow"), "LOCK") {
		t.Errorf("OPTIONS: %v", w.Header())
	}
}

// TestErrors: what an FS fails with, as a client hears it.
func TestErrors(t *testing.T) {
	c := newClient(t, mount.Options{})
	c.want(201, "PUT", "/f", "x")
	for err, code := range map[error]int{
		mount.ErrAway: 504, mount.ErrSpace: 507, mount.ErrReadOnly: 403, mount.ErrName: 403, mount.ErrClash: 409, errors.New("broken"): 500,
		fmt.Errorf("tree: put: %w", mount.ErrSpace): 507,
	} {
		c.fake.Fail = func(op, _ string) error {
			if op == "stat" {
				return nil
			}
			return err
		}
		c.want(code, "GET", "/f", "")
		c.want(code, "PUT", "/f", "y")
		c.want(code, "DELETE", "/f", "")
		c.want(code, "MOVE", "/f", "", "Destination: /g")
		c.want(code, "PROPFIND", "/", "", "Depth: 1")
	}
}

func TestReadOnly(t *testing.T) {
	c := newClient(t, mount.Options{ReadOnly: true})
	if _, err := c.fake.Put(t.Context(), "/f", strings.NewReader("x"), time.Now()); err != nil {
		t.Fatal(err)
	}
	for _, method := range []string{"PUT", "DELETE", "MKCOL", "COPY", "MOVE", "PROPPATCH", "LOCK", "UNLOCK"} {
		c.want(403, method, "/f", "", "Destination: /g")
	}
	c.want(200, "GET", "/f", "")
	c.want(207, "PROPFIND", "/", "", "Depth: 1")
	if w := c.want(200, "OPTIONS", "/", ""); w.Header().Get("DAV") != "1" || strings.Contains(w.Header().Get("Allow"), "PUT") {
		t.Errorf("OPTIONS: %v", w.Header())
	}
}

// TestBrokenUpload: a client that goes in the middle changes nothing.
func TestBrokenUpload(t *testing.T) {
	c := newClient(t, mount.Options{})
	c.want(201, "PUT", "/f", "kept")
	body := io.MultiReader(strings.NewReader("half"), iotest.ErrReader(io.ErrUnexpectedEOF))
	if w := c.do("PUT", "/f", body); w.Code != 400 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if got := c.want(200, "GET", "/f", "").Body.String(); got != "kept" {
		t.Errorf("it has %q", got)
	}
}

// TestUploadStreams: an FS gets the first bytes before the client has sent the last.
func TestUploadStreams(t *testing.T) {
	fake := &slowFake{Fake: mounttest.NewFake(), first: make(chan struct{})}
	url, token := serve(t, fake, mount.Options{})
	body, client := io.Pipe()
	go func() {
		_, _ = client.Write([]byte("first"))
		<-fake.first // the test's own timeout is what waits
		_, _ = client.Write([]byte(" last"))
		_ = client.Close()
	}()
	r, err := http.NewRequestWithContext(t.Context(), "PUT", url+"/f", body)
	if err != nil {
		t.Fatal(err)
	}
	r.SetBasicAuth("any", token)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		t.Errorf("%s", resp.Status)
	}
}

type slowFake struct {
	*mounttest.Fake
	first chan struct{}
}

// Put tells when the first bytes have come.
func (f *slowFake) Put(ctx context.Context, p string, body io.Reader, at time.Time) (mount.Info, error) {
	head := make([]byte, 5)
	if _, err := io.ReadFull(body, head); err != nil {
		return mount.Info{}, err
	}
	close(f.first)
	return f.Fake.Put(ctx, p, io.MultiReader(strings.NewReader(string(head)), body), at)
}

// TestLateFailure: a file whose bytes cannot be had is a failure, from the first byte on or in the middle.
func TestLateFailure(t *testing.T) {
	for _, good := range []int64{0, 1 << 20} {
		files := &awayFS{Fake: mounttest.NewFake(), good: good}
		if _, err := files.Put(t.Context(), "/f", strings.NewReader(strings.Repeat("x", 2<<20)), time.Now()); err != nil {
			t.Fatal(err)
		}
		url, token := serve(t, files, mount.Options{})
		r, err := http.NewRequestWithContext(t.Context(), "GET", url+"/f", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.SetBasicAuth("", token)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		n, err := io.Copy(io.Discard, resp.Body)
		if good == 0 {
			if resp.StatusCode != http.StatusGatewayTimeout || err != nil || resp.Header.Get("Etag") != "" {
				t.Errorf("%s, %v, %v", resp.Status, err, resp.Header)
			}
		} else if resp.StatusCode != http.StatusOK || err == nil || n > good {
			t.Errorf("%s, %d bytes, %v", resp.Status, n, err)
		}
	}
}

// awayFS is an FS whose files can be read only at their beginning.
type awayFS struct {
	*mounttest.Fake
	good int64
}

func (f *awayFS) Open(ctx context.Context, p string) (mount.File, error) {
	file, err := f.Fake.Open(ctx, p)
	return awayFile{file, f.good}, err
}

type awayFile struct {
	mount.File
	good int64
}

func (f awayFile) ReadAt(b []byte, off int64) (int, error) {
	if off+int64(len(b)) > f.good {
		return 0, mount.ErrAway
	}
	return f.File.ReadAt(b, off)
}
