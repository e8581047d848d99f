package mount_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"strings"
	"testing"

	"github.com/shoal-os/shoal/storage/mount"
	"github.com/shoal-os/shoal/storage/mount/mounttest"
)

// FuzzRequest sends a face anything, and checks that it answers, that an answer that has XML has good XML, and that the
// tree is still one: each thing lies in a folder.
func FuzzRequest(f *testing.F) {
	f.Add("PROPFIND", "/dav/d", "<propfind xmlns='DAV:'><allprop/></propfind>", "Depth: 1")
	f.Add("PROPPATCH", "/dav/d/f", setProp("urn:x", "p", "a<b xmlns=''>c</b>"), "If: (Not <x>)")
	f.Add("LOCK", "/dav/new", lockBody, "Timeout: Second-10, Infinite")
	f.Add("MOVE", "/dav/d", "", "Destination: http://pool/dav/e%20f\nOverwrite: F")
	f.Add("COPY", "/dav/", "", "Destination: /dav/d/e\nDepth: 0")
	f.Add("PUT", "/dav/d/f", "bytes", "X-OC-Mtime: 1.5\nIf-Match: *")
	f.Add("GET", "/dav/d/f", "", "Range: bytes=1-1,2-")
	f.Fuzz(func(t *testing.T, method, target, body, headers string) {
		r := &http.Request{
			Method: method, Host: "pool", Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: make(http.Header),
			Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)),
		}
		var err error
		if r.URL, err = url.ParseRequestURI(target); err != nil {
			return
		}
		for line := range strings.SplitSeq(headers, "\n") {
			if name, value, ok := strings.Cut(line, ": "); ok {
				r.Header.Add(name, value)
			}
		}
		fake := mounttest.NewFake()
		face := mount.Handler(fake, mount.Options{Prefix: "/dav"})
		for _, p := range []string{"/dav/d/", "/dav/d/sub"} {
			face.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("MKCOL", p, nil))
		}
		face.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("PUT", "/dav/d/f", strings.NewReader("x")))
		w := httptest.NewRecorder()
		face.ServeHTTP(w, r.WithContext(t.Context()))
		// What was set, moved or locked must not spoil the answers to others.
		again := httptest.NewRequest("PROPFIND", "/dav/d", nil)
		again.Header.Set("Depth", "1")
		listing := httptest.NewRecorder()
		face.ServeHTTP(listing, again)
		for _, answer := range []*httptest.ResponseRecorder{w, listing} {
			if strings.Contains(answer.Header().Get("Content-Type"), "/xml; charset=utf-8") && !mount.GoodXML(answer.Body.Bytes()) {
				t.Fatalf("%d: %s", answer.Code, answer.Body)
			}
		}
		checkTree(t, fake, "/")
	})
}

// checkTree walks all there is, and looks at each thing by its own path as well.
func checkTree(t *testing.T, fake *mounttest.Fake, folder string) {
	infos, err := fake.List(t.Context(), folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range infos {
		p := path.Join(folder, i.Name)
		if got, err := fake.Stat(t.Context(), p); err != nil || got != i || path.Dir(p) != folder {
			t.Fatalf("%q in %q is %+v: %+v, %v", i.Name, folder, i, got, err)
		}
		if i.Folder {
			checkTree(t, fake, p)
		}
	}
}
