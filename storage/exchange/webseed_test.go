package exchange

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/storage/block"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/exchange/sched"
)

// webServer serves bytes with ranges, counting them; change may answer instead.
type webServer struct {
	*httptest.Server
	sent     atomic.Int64
	requests atomic.Int64
}

func newWebServer(t testing.TB, data []byte, change func(w http.ResponseWriter, r *http.Request) (done bool)) *webServer {
	t.Helper()
	s := &webServer{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		if r.Header.Get("Referer") != "" || r.Header.Get("Cookie") != "" {
			t.Errorf("a request says too much: %v", r.Header)
		}
		if change != nil && change(w, r) {
			return
		}
		http.ServeContent(countingWriter{w, &s.sent}, r, "", time.Time{}, bytes.NewReader(data))
	}))
	t.Cleanup(s.Close)
	return s
}

type countingWriter struct {
	http.ResponseWriter
	n *atomic.Int64
}

func (c countingWriter) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.n.Add(int64(n))
	return n, err
}

// webGet is node.get with web seeds.
func (n *node) webGet(ctx context.Context, t testing.TB, s *sample, private bool, urls []string, from ...peer.AddrInfo) (string, Report, error) {
	t.Helper()
	return n.webGetWithin(ctx, t, webTimeout, s, private, urls, from...)
}

// webTimeout is for how long nobody may send anything; a busy machine under the race detector pauses for longer, now and then.
const webTimeout = 6 * time.Second

func (n *node) webGetWithin(ctx context.Context, t testing.TB, timeout time.Duration, s *sample, private bool, urls []string, from ...peer.AddrInfo) (string, Report, error) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out")
	var root *block.Root
	rep, err := n.Fetch(ctx, Job{
		Root: s.root, From: from, Timeout: timeout, Web: urls, WebPrivate: private,
		Begin: func(_ context.Context, tree *chunk.Tree, nodes [][]byte) (r *block.Root, err error) {
			root, err = n.store.Begin(tree, nodes, "x", out)
			return root, err
		},
	})
	if err == nil {
		err = root.Finish(false)
	}
	return out, rep, err
}

// treeOnly is a peer that has the tree of s and none of its leaves.
func treeOnly(t testing.TB, s *sample) *node {
	t.Helper()
	n := newNode(t)
	if _, err := n.store.Begin(s.tree, s.nodes, "x", filepath.Join(t.TempDir(), "half")); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestWebSeedAlone(t *testing.T) {
	t.Parallel()
	data := noise(1, 20<<20+5)
	s := makeSample(t, map[string][]byte{"": data})
	web := newWebServer(t, data, nil)
	out, rep, err := newNode(t).webGet(t.Context(), t, s, true, []string{web.URL}, infoOf(treeOnly(t, s).host))
	if err != nil {
		t.Fatal(err)
	}
	s.check(t, out)
	if len(rep.Web) != 1 || rep.Web[0].Bytes != int64(len(data)) || rep.Web[0].Why != "" || web.sent.Load() != int64(len(data)) {
		t.Errorf("%+v, %d bytes sent", rep, web.sent.Load())
	}
	// How many leaves go into one depends on the rate that was measured: on a
	// quick machine half as many requests as leaves, on a busy one nearly as many.
	if n := web.requests.Load(); n > int64(len(s.leaves)) {
		t.Errorf("%d requests for %d leaves", n, len(s.leaves))
	}
}

func TestWebSeedOfARawRoot(t *testing.T) {
	t.Parallel()
	data := noise(2, 12345)
	s := makeSample(t, map[string][]byte{"": data})
	web := newWebServer(t, data, nil)
	out, rep, err := newNode(t).webGet(t.Context(), t, s, true, []string{web.URL})
	if err != nil {
		t.Fatal(err, rep)
	}
	s.check(t, out)
}

func TestWebSeedBesidePeers(t *testing.T) {
	t.Parallel()
	data := noise(3, 24<<20)
	s := makeSample(t, map[string][]byte{"": data})
	seeder := newNode(t)
	s.share(t, seeder.store)
	web := newWebServer(t, data, nil)
	out, rep, err := newNode(t).webGet(t.Context(), t, s, true, []string{web.URL}, infoOf(seeder.host))
	if err != nil {
		t.Fatal(err)
	}
	s.check(t, out)
	if len(rep.Sources) != 1 || rep.Sources[0].Bytes == 0 || rep.Web[0].Bytes == 0 {
		t.Errorf("%+v", rep)
	}
}

// TestUselessWebSeeds: whatever a server does wrong, it is dropped with the
// reason, and the bytes come from the peer.
func TestUselessWebSeeds(t *testing.T) {
	t.Parallel()
	data := noise(4, 6<<20)
	wrong := bytes.Clone(data)
	wrong[3<<20]++
	for name, c := range map[string]struct {
		change func(w http.ResponseWriter, r *http.Request) bool
		data   []byte
		want   string
	}{
		"no ranges": {func(w http.ResponseWriter, r *http.Request) bool {
			_, _ = w.Write(data)
			return true
		}, data, "does not support ranges"},
		"lies":        {nil, wrong, "do not match the root"},
		"shorter":     {nil, data[:5<<20], "bytes there"},
		"longer":      {nil, append(bytes.Clone(data), 1), fmt.Sprintf("%d bytes there, not %d", len(data)+1, len(data))},
		"not there":   {func(w http.ResponseWriter, r *http.Request) bool { http.NotFound(w, r); return true }, nil, "Not Found"},
		"other range": {func(w http.ResponseWriter, r *http.Request) bool { r.Header.Set("Range", "bytes=0-9"); return false }, data, "another range"},
		"encoded": {func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Content-Encoding", "br")
			return false
		}, data, "encodes"},
		"endless redirects": {func(w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, r.URL.Path+"x", http.StatusFound)
			return true
		}, nil, "redirects"},
		"a redirect elsewhere": {func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Location", "gopher://127.0.0.1/")
			w.WriteHeader(http.StatusFound)
			return true
		}, nil, `a redirect to "gopher"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := makeSample(t, map[string][]byte{"": data})
			seeder := newNode(t)
			s.share(t, seeder.store)
			web := newWebServer(t, c.data, c.change)
			n := newNode(t)
			// First without the peer's leaves, so that it must be tried.
			poor := infoOf(treeOnly(t, s).host)
			_, rep, err := n.webGet(t.Context(), t, s, true, []string{web.URL}, poor)
			if err != nil && !strings.Contains(err.Error(), c.want) {
				_, rep, err = n.webGetWithin(t.Context(), t, 10*webTimeout, s, true, []string{web.URL}, poor)
			}
			var none *NoProviderError
			if !errors.As(err, &none) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), web.URL) {
				t.Fatalf("%v", err)
			}
			if len(rep.Web) != 1 || !strings.Contains(rep.Web[0].Why, c.want) {
				t.Errorf("%+v", rep)
			}
			r, _ := n.store.Root(s.root)
			if err := n.store.Remove(r.CID()); err != nil {
				t.Fatal(err)
			}
			out, _, err := n.webGetWithin(t.Context(), t, 10*webTimeout, s, true, []string{web.URL}, infoOf(seeder.host))
			if err != nil {
				t.Fatal(err)
			}
			s.check(t, out)
		})
	}
}

// TestWebSeedComesBack: a server that fails now and then is asked again.
func TestWebSeedComesBack(t *testing.T) {
	t.Parallel()
	data := noise(5, 3<<20)
	s := makeSample(t, map[string][]byte{"": data})
	var n atomic.Int64
	web := newWebServer(t, data, func(w http.ResponseWriter, r *http.Request) bool {
		if n.Add(1) == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		}
		return false
	})
	out, _, err := newNode(t).webGet(t.Context(), t, s, true, []string{web.URL}, infoOf(treeOnly(t, s).host))
	if err != nil {
		t.Fatal(err)
	}
	s.check(t, out)
}

// TestLinksDoNotProbe: without permission, nothing inside this network is asked,
// neither by address nor by name nor behind a redirect.
func TestLinksDoNotProbe(t *testing.T) {
	t.Parallel()
	data := noise(6, 3<<20)
	s := makeSample(t, map[string][]byte{"": data})
	web := newWebServer(t, data, nil)
	byName := strings.Replace(web.URL, "127.0.0.1", "localhost", 1)
	_, rep, err := newNode(t).webGet(t.Context(), t, s, false, []string{web.URL, byName, "ftp://example.org/", "http://me:pw@example.org/"},
		infoOf(treeOnly(t, s).host))
	var none *NoProviderError
	if !errors.As(err, &none) {
		t.Fatal(err)
	}
	for i, want := range []string{"not a public address", "not a public address", "not an http", "password"} {
		if len(rep.Web) != 4 || !strings.Contains(rep.Web[i].Why, want) {
			t.Fatalf("%d: %+v", i, rep.Web)
		}
	}
	if n := web.requests.Load(); n > 0 {
		t.Errorf("%d requests reached it", n)
	}
	c := webClient(false)
	via := []*http.Request{httptest.NewRequest(http.MethodGet, "https://example.org/", nil)}
	if err := c.CheckRedirect(httptest.NewRequest(http.MethodGet, "http://example.org/", nil), via); err == nil {
		t.Error("a redirect from https to http")
	}
}

func TestPublicAddresses(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"8.8.8.8": true, "1.1.1.1": true, "2606:4700::1": true, "::ffff:8.8.8.8": true, "64:ff9b::808:808": true,
		"127.0.0.1": false, "10.1.2.3": false, "192.168.0.1": false, "172.20.0.1": false, "169.254.169.254": false, "100.64.0.1": false,
		"0.0.0.0": false, "224.0.0.1": false, "255.255.255.255": false, "240.0.0.1": false, "198.18.0.1": false, "192.0.2.1": false,
		"::1": false, "::": false, "fe80::1": false, "fd00::1": false, "fec0::1": false, "ff02::1": false, "::ffff:10.0.0.1": false,
		"64:ff9b::a00:1": false, "2002:a00:1::": false, "2001:db8::1": false, "2001::1": false, "::127.0.0.1": false, "4000::1": false,
	} {
		if got := isPublic(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
	for text, want := range map[string]bool{
		"8.8.8.8:443": true, "8.8.8.8:80": true, "8.8.8.8:8080": true, "8.8.8.8:25": false, "8.8.8.8:22": false, "127.0.0.1:443": false, "x": false,
	} {
		if err := publicAddress(text); (err == nil) != want {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestContentRanges(t *testing.T) {
	t.Parallel()
	if first, last, total, ok := parseContentRange("bytes 5-9/100"); first != 5 || last != 9 || total != 100 || !ok {
		t.Error(first, last, total, ok)
	}
	for _, s := range []string{"", "bytes", "bytes 5-9", "bytes 5-9/*", "bytes */100", "bytes 9-5/100", "bytes 5-100/100", "bytes -1-9/100", "items 0-9/10", "bytes 0-9/99999999999999999999"} {
		if _, _, _, ok := parseContentRange(s); ok {
			t.Errorf("%q", s)
		}
	}
}

func TestWebReadAndGet(t *testing.T) {
	t.Parallel()
	data := noise(7, 5000)
	web := newWebServer(t, data, nil)
	got, size, err := WebRead(t.Context(), web.URL, 100, 50, -1, true)
	if err != nil || size != 5000 || !bytes.Equal(got, data[100:150]) {
		t.Error(len(got), size, err)
	}
	if _, _, err := WebRead(t.Context(), web.URL, 0, 50, 4999, true); err == nil {
		t.Error("another size")
	}
	if _, _, err := WebRead(t.Context(), web.URL, 0, 50, -1, false); !errors.Is(err, errNotPublic) {
		t.Error(err)
	}
	body, size, err := WebGet(t.Context(), web.URL)
	if err != nil || size != 5000 {
		t.Fatal(size, err)
	}
	defer body.Close()
	if got, err := io.ReadAll(body); err != nil || !bytes.Equal(got, data) {
		t.Error(len(got), err)
	}
}

// What was said to have arrived is verified, though its seed is dropped at that moment: nobody is asked for it again before.
func TestWebLeafOfADroppedSeed(t *testing.T) {
	j := &job{swarm: &Swarm{}, notes: make(chan note, 1), work: make(chan *slab, 1)}
	j.ctx, j.cancel = context.WithCancel(t.Context())
	defer j.cancel()
	w := &webSeed{job: j, id: 1}
	w.ctx, w.stop = context.WithCancel(j.ctx)
	w.drop("it lied")
	for range 64 { // both ways were open, and either was taken
		_ = w.leaf(bytes.NewReader([]byte("leaf")), 0, 4)
		if n := <-j.notes; n.ev.Kind != sched.Arrived {
			t.Fatalf("%+v", n)
		}
		select {
		case <-j.work:
		default:
			t.Fatal("a leaf has arrived and is not handed to the verifiers")
		}
	}
}
