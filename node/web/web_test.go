package web

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/host"
	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/node/api/client"
	"github.com/shoal-os/shoal/storage"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/chunk/car"
	"github.com/shoal-os/shoal/storage/exchange"
)

// source is a storage with a host on loopback.
type source struct {
	*storage.Storage
	host *host.Host
}

func newSource(t testing.TB) *source {
	t.Helper()
	home := t.TempDir()
	id, err := ident.LoadOrCreate(home, "test")
	if err != nil {
		t.Fatal(err)
	}
	h, err := host.New(host.Config{Identity: id, Listen: []string{"/ip4/127.0.0.1/tcp/0"}})
	if err != nil {
		t.Fatal(err)
	}
	s, err := storage.Open(storage.Config{Dir: filepath.Join(home, "store"), Host: h})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(s.Close(), h.Close()); err != nil {
			t.Error(err)
		}
	})
	return &source{s, h}
}

// share shares files, the one of the empty name as a single file.
func (s *source) share(t testing.TB, name string, files map[string][]byte) chunk.Link {
	t.Helper()
	at := filepath.Join(t.TempDir(), name)
	for path, data := range files {
		path = filepath.Join(at, filepath.FromSlash(path))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if files["folder/page.html"] != nil {
		if err := os.Symlink("../elsewhere", filepath.Join(at, "link")); err != nil {
			t.Fatal(err)
		}
	}
	sh, err := s.Share(t.Context(), at, storage.ShareOptions{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	addrs, err := peer.AddrInfoToP2pAddrs(&peer.AddrInfo{ID: s.host.ID(), Addrs: s.host.Addrs()})
	if err != nil {
		t.Fatal(err)
	}
	return chunk.Link{Root: sh.Root, Name: sh.Name, Size: sh.Size, Addrs: addrs}
}

func randomBytes(seed byte, n int) []byte {
	out := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(out)
	return out
}

// site is a gateway behind a front on a real port, serving some links.
type site struct {
	url     string
	gateway *Gateway
	front   *Front
}

func newSite(t testing.TB, s Source, links ...chunk.Link) *site {
	t.Helper()
	g := New(s, nil)
	server := httptest.NewUnstartedServer(nil)
	front, err := NewFront(server.Listener.Addr(), func(context.Context) []chunk.Link { return links }, g)
	if err != nil {
		t.Fatal(err)
	}
	server.Config.Handler = front
	server.Start()
	t.Cleanup(func() {
		server.Close()
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
	return &site{server.URL, g, front}
}

// get makes a request; headers are "Name: value".
func (x *site) do(t testing.TB, method, path string, headers ...string) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, x.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		if name == "Host" {
			req.Host = value
		}
		req.Header.Add(name, value)
	}
	c := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	if resp.Header.Get("Set-Cookie") != "" || resp.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("%s: %v", path, resp.Header)
	}
	return resp, body
}

func (x *site) get(t testing.TB, path string, headers ...string) (*http.Response, []byte) {
	t.Helper()
	return x.do(t, http.MethodGet, path, headers...)
}

var film = randomBytes(1, 6<<20+11)

// testFolder is served by one peer and read by another over the network.
func testFolder(t testing.TB) (*site, chunk.Link) {
	t.Helper()
	a, b := newSource(t), newSource(t)
	link := a.share(t, "my share", map[string][]byte{
		"film.mkv": film, "folder/page.html": []byte("<script>alert(1)</script>"), "folder/plain": []byte("just text"),
		"folder/guess": []byte("<html><body>hi"), "picture.svg": []byte("<svg/>"), "empty.bin": nil,
		"<b>&\"'.txt": []byte("x"), "javascript:alert(1)": []byte("y"), "ünï 🐟.txt": []byte("z"), "index.html": []byte("<h1>theirs</h1>"),
	})
	return newSite(t, b, link), link
}

func TestFiles(t *testing.T) {
	x, link := testFolder(t)
	base := "/ipfs/" + link.Root.String()
	resp, body := x.get(t, base+"/film.mkv")
	if resp.StatusCode != 200 || !bytes.Equal(body, film) || resp.Header.Get("Content-Type") != "video/x-matroska" {
		t.Fatalf("%s, %d bytes, %v", resp.Status, len(body), resp.Header)
	}
	tag := resp.Header.Get("Etag")
	roots := strings.Split(resp.Header.Get("X-Ipfs-Roots"), ",")
	if len(roots) != 2 || roots[0] != link.Root.String() || tag != `"`+roots[1]+`"` {
		t.Errorf("Etag %s, X-Ipfs-Roots %v", tag, roots)
	}
	for name, want := range map[string]string{
		"X-Ipfs-Path": base + "/film.mkv", "X-Content-Type-Options": "nosniff", "Accept-Ranges": "bytes",
		"Cache-Control": "public, max-age=29030400, immutable", "Content-Security-Policy": "", "Content-Disposition": "",
		"Cross-Origin-Resource-Policy": "same-origin", "Referrer-Policy": "no-referrer",
	} {
		if got := resp.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	for _, c := range []struct {
		headers  []string
		status   int
		from, to int
	}{
		{[]string{"Range: bytes=0-9"}, 206, 0, 10},
		{[]string{"Range: bytes=3000000-3000099"}, 206, 3000000, 3000100},
		{[]string{"Range: bytes=-5"}, 206, len(film) - 5, len(film)},
		{[]string{"Range: bytes=10-19", "If-Range: " + tag}, 206, 10, 20},
		{[]string{"Range: bytes=10-19", `If-Range: "other"`}, 200, 0, len(film)},
		{[]string{"If-None-Match: " + tag}, 304, 0, 0},
	} {
		resp, body := x.get(t, base+"/film.mkv", c.headers...)
		if resp.StatusCode != c.status || !bytes.Equal(body, film[c.from:c.to]) {
			t.Errorf("%v: %s, %d bytes", c.headers, resp.Status, len(body))
		}
	}
	if resp, _ := x.get(t, base+"/film.mkv", "Range: bytes=99999999-"); resp.StatusCode != 416 {
		t.Errorf("out of range: %s", resp.Status)
	}
	resp, body = x.do(t, http.MethodHead, base+"/film.mkv")
	if resp.StatusCode != 200 || len(body) != 0 || resp.ContentLength != int64(len(film)) {
		t.Errorf("HEAD: %s, %d", resp.Status, resp.ContentLength)
	}
}

func TestTypesAndNames(t *testing.T) {
	x, link := testFolder(t)
	base := "/ipfs/" + link.Root.String()
	for path, want := range map[string][3]string{ // type, policy, disposition
		"/folder/page.html":              {"text/html; charset=utf-8", quiet, ""},
		"/folder/guess":                  {"text/html; charset=utf-8", quiet, ""},
		"/folder/plain":                  {"text/plain; charset=utf-8", "", ""},
		"/picture.svg":                   {"image/svg+xml", quiet, ""},
		"/empty.bin?filename=x.mp4":      {"video/mp4", "", `inline; filename="x.mp4"`},
		"/film.mkv?download=true":        {"video/x-matroska", "", `attachment; filename="film.mkv"`},
		"/film.mkv?download":             {"video/x-matroska", "", `attachment; filename="film.mkv"`},
		"/film.mkv?filename=../../x":     {"video/x-matroska", "", `inline; filename="film.mkv"`},
		"/film.mkv?filename=%C3%BC.html": {"text/html; charset=utf-8", quiet, `inline; filename="_.html"; filename*=UTF-8''%C3%BC.html`},
		"/folder/plain?filename=a%22%5C%0d%0ab&download=true": {"text/plain; charset=utf-8", "", `attachment; filename="plain"`},
	} {
		resp, _ := x.do(t, http.MethodHead, base+path)
		got := [3]string{resp.Header.Get("Content-Type"), resp.Header.Get("Content-Security-Policy"), resp.Header.Get("Content-Disposition")}
		if resp.StatusCode != 200 || got != want {
			t.Errorf("%s: %s\ngot  %q\nwant %q", path, resp.Status, got, want)
		}
	}
	resp, body := x.get(t, base+"/link")
	if resp.Header.Get("Content-Type") != "inode/symlink" || string(body) != "../elsewhere" {
		t.Errorf("link: %s %q", resp.Header.Get("Content-Type"), body)
	}
	for path, want := range map[string]int{
		"/nothing": 404, "/film.mkv/": 404, "/film.mkv/x": 404, "/folder/../film.mkv": 404, "//": 200, "/folder//plain": 404,
	} {
		if resp, _ := x.get(t, base+path); resp.StatusCode != want {
			t.Errorf("%s: %s, want %d", path, resp.Status, want)
		}
	}
}

func TestSingleFileIsCalledAsInItsLink(t *testing.T) {
	a := newSource(t)
	link := a.share(t, "song.flac", map[string][]byte{"": []byte("fLaC")})
	x := newSite(t, newSource(t), link)
	resp, body := x.get(t, "/ipfs/"+link.Root.String())
	if resp.Header.Get("Content-Type") != "audio/flac" || string(body) != "fLaC" || resp.Header.Get("X-Ipfs-Roots") != link.Root.String() {
		t.Errorf("%v %q", resp.Header, body)
	}
	resp, _ = x.get(t, Path(link))
	if resp.Header.Get("Content-Disposition") != `inline; filename="song.flac"` {
		t.Errorf("%v", resp.Header)
	}
}

func TestListing(t *testing.T) {
	x, link := testFolder(t)
	base := "/ipfs/" + link.Root.String()
	resp, _ := x.get(t, base+"?filename=a%20b")
	if resp.StatusCode != 301 || resp.Header.Get("Location") != base+"/?filename=a%20b" {
		t.Errorf("%s to %s", resp.Status, resp.Header.Get("Location"))
	}
	resp, body := x.get(t, base+"/")
	page := string(body)
	if resp.StatusCode != 200 || resp.Header.Get("Content-Security-Policy") != ours || resp.Header.Get("Cache-Control") != "no-cache" {
		t.Errorf("%s %v", resp.Status, resp.Header)
	}
	for _, want := range []string{
		`<a href="./film.mkv">film.mkv</a>`, `<td>6.0 MiB`, `<a href="./folder/">folder/</a>`, "link → ../elsewhere",
		`<a href="./%3Cb%3E&amp;%22%27.txt">&lt;b&gt;&amp;&#34;&#39;.txt</a>`, `<a href="./javascript:alert%281%29">javascript:alert(1)</a>`,
		`<a href="./index.html">`, `<title>my share</title>`,
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %s", want)
		}
	}
	if strings.Contains(page, "theirs") || strings.Contains(page, "<b>") {
		t.Errorf("a stranger's page is shown:\n%s", page)
	}
	if t.Failed() {
		t.Log(page)
	}
	resp, body = x.get(t, base+"/folder/")
	if !strings.Contains(string(body), `<a href="../">`) {
		t.Error("no way up")
	}
	if resp, _ := x.get(t, base+"/folder/", "If-None-Match: "+resp.Header.Get("Etag")); resp.StatusCode != 304 {
		t.Errorf("again: %s", resp.Status)
	}
	// What the page links to is there.
	for _, path := range []string{"/%3Cb%3E&%22%27.txt", "/javascript:alert%281%29", "/%C3%BCn%C3%AF%20%F0%9F%90%9F.txt"} {
		if resp, body := x.get(t, base+path); resp.StatusCode != 200 || len(body) != 1 {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
	resp, body = x.get(t, "/")
	if !strings.Contains(string(body), `<a href="`+base+`?filename=my&#43;share">my share</a>`) && !strings.Contains(string(body), ">my share</a>") {
		t.Errorf("%s:\n%s", resp.Status, body)
	}
}

func TestRaw(t *testing.T) {
	x, link := testFolder(t)
	base := "/ipfs/" + link.Root.String()
	resp, body := x.get(t, base+"?format=raw")
	if resp.StatusCode != 200 || chunk.SumNode(body) != link.Root {
		t.Fatalf("%s, %d bytes", resp.Status, len(body))
	}
	for name, want := range map[string]string{
		"Content-Type": typeRaw, "Content-Disposition": `attachment; filename="` + link.Root.String() + `.bin"`,
		"X-Content-Type-Options": "nosniff", "Etag": `"` + link.Root.String() + `.raw"`, "X-Ipfs-Roots": link.Root.String(),
	} {
		if got := resp.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	leaf := chunk.SumRaw(film[:1<<20])
	// A block of an open root, by its own name; by Accept, and in part.
	resp, body = x.get(t, "/ipfs/"+leaf.String(), "Accept: application/vnd.ipld.raw")
	if resp.StatusCode != 200 || !bytes.Equal(body, film[:1<<20]) || resp.Header.Get("Vary") != "Accept" {
		t.Errorf("a leaf: %s, %d bytes", resp.Status, len(body))
	}
	if resp, body := x.get(t, "/ipfs/"+leaf.String()+"?format=raw", "Range: bytes=5-6"); resp.StatusCode != 206 || !bytes.Equal(body, film[5:7]) {
		t.Errorf("a part of it: %s", resp.Status)
	}
	if resp, _ := x.get(t, "/ipfs/"+leaf.String()); resp.StatusCode != 404 {
		t.Errorf("a leaf as a file of its own: %s", resp.Status)
	}
	if resp, _ := x.get(t, "/ipfs/"+chunk.SumRaw([]byte("other")).String()+"?format=raw"); resp.StatusCode != 404 {
		t.Errorf("an unknown block: %s", resp.Status)
	}
	if resp, body := x.get(t, base+"/film.mkv?format=raw"); resp.StatusCode != 200 || !strings.HasSuffix(resp.Header.Get("X-Ipfs-Roots"), chunk.SumNode(body).String()) {
		t.Errorf("by a path: %s", resp.Status)
	}
}

// blocksOf reads a CAR stream.
func blocksOf(t testing.TB, data []byte) (out []chunk.CID) {
	t.Helper()
	r, err := car.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	for {
		id, _, _, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, id)
	}
}

func TestCAR(t *testing.T) {
	x, link := testFolder(t)
	base := "/ipfs/" + link.Root.String()
	tags := map[string]bool{}
	for query, want := range map[string]int{
		"?format=car":                                       20,
		"/film.mkv?format=car":                              9,
		"/film.mkv?format=car&dag-scope=block":              2,
		"/film.mkv?format=car&dag-scope=all":                9,
		"?format=car&dag-scope=entity":                      1,
		"?format=car&dag-scope=block":                       1,
		"/folder?format=car&dag-scope=entity":               2,
		"/film.mkv?format=car&entity-bytes=0:10":            3,
		"/film.mkv?format=car&entity-bytes=-1:*":            3,
		"/film.mkv?format=car&entity-bytes=1048575:1048576": 4,
		"/folder?format=car&entity-bytes=0:10":              2,
		"?format=car&car-dups=y&dag-scope=block":            1,
	} {
		resp, body := x.get(t, base+query)
		if resp.StatusCode != 200 {
			t.Errorf("%s: %s %s", query, resp.Status, body)
			continue
		}
		if got := blocksOf(t, body); len(got) != want || got[0] != link.Root {
			t.Errorf("%s: %d blocks, want %d", query, len(got), want)
		}
		kind := "application/vnd.ipld.car; version=1; order=dfs; dups=n"
		if strings.Contains(query, "dups=y") {
			kind = strings.TrimSuffix(kind, "n") + "y"
		}
		if got := resp.Header.Get("Content-Type"); got != kind || !strings.HasPrefix(resp.Header.Get("Content-Disposition"), "attachment;") {
			t.Errorf("%s: %s", query, got)
		}
		tag := resp.Header.Get("Etag")
		if tags[tag] && query != "/film.mkv?format=car" && query != "/film.mkv?format=car&dag-scope=all" {
			t.Errorf("%s: the Etag %s is another's", query, tag)
		}
		tags[tag] = true
		if resp, body := x.get(t, base+query, "If-None-Match: "+tag); resp.StatusCode != 304 || len(body) > 0 {
			t.Errorf("%s again: %s", query, resp.Status)
		}
		if resp, body := x.do(t, http.MethodHead, base+query); resp.StatusCode != 200 || len(body) > 0 || resp.Header.Get("Etag") != tag {
			t.Errorf("HEAD %s: %s", query, resp.Status)
		}
	}
	resp, body := x.get(t, base, "Accept: application/vnd.ipld.car; version=1; order=dfs; dups=y, */*;q=0.1")
	if resp.StatusCode != 200 || len(blocksOf(t, body)) != 20 || !strings.HasSuffix(resp.Header.Get("Content-Type"), "dups=y") {
		t.Errorf("by Accept: %s %v", resp.Status, resp.Header)
	}
	for query, want := range map[string]int{
		"?format=car&dag-scope=some": 400, "?format=car&entity-bytes=x": 400, "?format=car&entity-bytes=5:4": 400,
		"/film.mkv?format=car&entity-bytes=99999999:*": 400, "?format=car&car-version=2": 406, "?format=car&car-order=bfs": 406,
		"?format=car&car-dups=maybe": 406, "?format=tar": 406, "/nothing?format=car": 404,
	} {
		if resp, _ := x.get(t, base+query); resp.StatusCode != want {
			t.Errorf("%s: %s, want %d", query, resp.Status, want)
		}
	}
	if resp, _ := x.get(t, base, "Accept: application/vnd.ipld.dag-json"); resp.StatusCode != 406 {
		t.Errorf("a form that there is not: %s", resp.Status)
	}
	if resp, _ := x.get(t, base+"/folder/", "Accept: application/vnd.ipld.dag-json, text/html"); resp.StatusCode != 200 {
		t.Errorf("beside one that there is: %s", resp.Status)
	}
}

func TestProbe(t *testing.T) {
	x, _ := testFolder(t)
	if resp, body := x.get(t, "/ipfs/bafkqaaa?format=raw"); resp.StatusCode != 200 || len(body) > 0 || resp.Header.Get("Content-Type") != typeRaw {
		t.Errorf("%s %q", resp.Status, body)
	}
	if resp, body := x.get(t, "/ipfs/bafkqaaa?format=car"); resp.StatusCode != 200 || int(body[0]) != len(body)-1 {
		t.Errorf("%s %q", resp.Status, body)
	}
	if resp, _ := x.do(t, http.MethodHead, "/ipfs/bafkqaaa"); resp.StatusCode != 200 {
		t.Error(resp.Status)
	}
}

func TestFrontGuards(t *testing.T) {
	x, link := testFolder(t)
	base := "/ipfs/" + link.Root.String()
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(x.url, "http://"))
	for host, want := range map[string]int{
		"localhost:" + port: 200, "LOCALHOST:" + port: 200, "evil.example:" + port: 403, "evil.example": 403, "127.0.0.1": 403,
		"localhost.evil.example:" + port: 403, "[::1]:" + port: 403,
	} {
		if resp, _ := x.do(t, http.MethodHead, base+"/film.mkv", "Host: "+host); resp.StatusCode != want {
			t.Errorf("Host %s: %s", host, resp.Status)
		}
	}
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS"} {
		if resp, _ := x.do(t, method, base); resp.StatusCode != 405 {
			t.Errorf("%s: %s", method, resp.Status)
		}
	}
	// Roots that are not shown are not served, whatever the request claims.
	other := chunk.Link{Root: chunk.SumNode([]byte("x"))}
	for _, path := range []string{"", "/x", "?format=car", "?format=raw"} {
		if resp, _ := x.get(t, "/ipfs/"+other.Root.String()+path, LinkHeader+": "+other.String()); resp.StatusCode != 404 {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
	for path, want := range map[string]int{"/x": 404, "/ipfs/": 400, "/ipfs/nonsense": 400, "/ipns/x": 404} {
		if resp, _ := x.get(t, path); resp.StatusCode != want {
			t.Errorf("%s: %s, want %d", path, resp.Status, want)
		}
	}
}

// failing is a source that opens nothing, for a reason.
type failing struct{ err error }

func (f failing) Open(context.Context, chunk.Link, storage.OpenOptions) (*storage.Content, error) {
	return nil, f.err
}
func (failing) Holds(chunk.CID) bool { return false }

func TestFailuresHaveStatuses(t *testing.T) {
	link := chunk.Link{Root: chunk.SumNode([]byte("x"))}
	for _, c := range []struct {
		err  error
		want int
	}{
		{client.Wrap(client.KindNotFound, &exchange.NoProviderError{Root: link.Root}, ""), 504},
		{client.Wrap(client.KindCorrupt, chunk.ErrTree, ""), 502},
		{storage.ErrClosed, 503},
		{errors.New("odd"), 500},
	} {
		x := newSite(t, failing{c.err}, link)
		resp, body := x.get(t, "/ipfs/"+link.Root.String())
		if resp.StatusCode != c.want || resp.Header.Get("Cache-Control") != "no-store" || !strings.Contains(string(body), c.err.Error()) {
			t.Errorf("%v: %s %s", c.err, resp.Status, body)
		}
		if resp, _ := x.get(t, "/ipfs/"+link.Root.String(), "Cache-Control: only-if-cached"); resp.StatusCode != 412 {
			t.Errorf("only if cached: %s", resp.Status)
		}
	}
}

// slow is a source whose opening ends only with its context, and that counts.
type slow struct{ opening chan chunk.CID }

func (s slow) Open(ctx context.Context, link chunk.Link, _ storage.OpenOptions) (*storage.Content, error) {
	s.opening <- link.Root
	<-ctx.Done()
	return nil, ctx.Err()
}
func (slow) Holds(chunk.CID) bool { return false }

func TestPoolIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := slow{make(chan chunk.CID, openMax+1)}
		p := newPool(s)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 2*openMax)
		for i := range openMax {
			for range 2 { // two requests for one root open it once
				go func() {
					_, _, err := p.get(ctx, chunk.Link{Root: chunk.SumRaw([]byte{byte(i)})})
					ended <- err
				}()
			}
		}
		synctest.Wait()
		if len(s.opening) != openMax {
			t.Fatalf("%d openings", len(s.opening))
		}
		if _, _, err := p.get(ctx, chunk.Link{Root: chunk.SumRaw([]byte("more"))}); !errors.Is(err, errBusy) {
			t.Errorf("one more: %v", err)
		}
		cancel() // those who wait go away, and so do the openings
		for range 2 * openMax {
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
		synctest.Wait()
		if n := len(p.open); n != 0 {
			t.Errorf("%d roots are still being opened", n)
		}
		p.close()
		if _, _, err := p.get(t.Context(), chunk.Link{Root: chunk.SumRaw(nil)}); !errors.Is(err, errClosed) {
			t.Errorf("after close: %v", err)
		}
	})
}

func TestIdleRootsAreClosed(t *testing.T) {
	a := newSource(t)
	var links []chunk.Link
	for i := range openMax + 3 {
		links = append(links, a.share(t, "f", map[string][]byte{"": {byte(i), 1}}))
	}
	p := newPool(a)
	defer p.close()
	for _, l := range links {
		c, release, err := p.get(t.Context(), l)
		if err != nil || c.Root() != l.Root {
			t.Fatal(err)
		}
		release()
		release()
	}
	if n := len(p.all()); n != openMax {
		t.Errorf("%d roots are open", n)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.open[links[0].Root]; ok {
		t.Error("the one used longest ago is open")
	}
	for _, h := range p.open {
		if h.timer == nil && h.users == 0 {
			t.Error("an idle root has no end")
		}
	}
}

// TestABodyThatEndsEarlySaysSo: a client must not take half a file for a whole.
func TestABodyThatEndsEarlySaysSo(t *testing.T) {
	a, b := newSource(t), newSource(t)
	link := a.share(t, "dir", map[string][]byte{"f": film})
	x := newSite(t, b, link)
	for _, path := range []string{"/f", "?format=car"} {
		resp, err := http.Get(x.url + "/ipfs/" + link.Root.String() + path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(resp.Body, make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
		x.gateway.pool.close()
		if n, err := io.Copy(io.Discard, resp.Body); err == nil && n+1000 < int64(len(film)) {
			t.Errorf("%s: %d bytes and no error", path, n)
		}
		resp.Body.Close()
		x = newSite(t, newSource(t), link)
	}
}

func TestSizes(t *testing.T) {
	for n, want := range map[int64]string{-1: "", 0: "0 B", 1023: "1023 B", 1536: "1.5 KiB", 5 << 30: "5.0 GiB"} {
		if got := sizeText(n); got != want {
			t.Errorf("%d: %s", n, got)
		}
	}
	if got := (form{scope: storage.ScopeBlock}).digest("a"); !strings.HasPrefix(got, "block.") || got == (form{scope: storage.ScopeBlock}).digest("b") {
		t.Error(got)
	}
	if !slices.Equal([]bool{acts("text/html; charset=utf-8"), acts("image/png"), acts("application/rss+xml"), acts("??")}, []bool{true, false, true, true}) {
		t.Error("acts")
	}
}
