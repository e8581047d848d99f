package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/shoal-os/shoal/dht/golden"
	"github.com/shoal-os/shoal/node/api/client"
)

// fake is a peer that does what its test says.
type fake struct {
	fakePool
	fakeFiles
	fakeJobs
	share   func(context.Context, client.ShareRequest, func(client.Progress)) (client.Share, error)
	get     func(context.Context, client.GetRequest, func(client.Progress)) (client.GetResult, error)
	unshare func(string) error
	stopped chan struct{}
}

func (f *fake) Status(context.Context) (client.Status, error) {
	return client.Status{Name: "ada", Addrs: []string{}, Peers: []client.Peer{}}, nil
}
func (f *fake) ID(context.Context) (client.Identity, error) { return client.Identity{Name: "ada"}, nil }
func (f *fake) Doctor(context.Context) (client.Doctor, error) {
	return client.Doctor{}, errors.New("out of order")
}
func (f *fake) Shares(context.Context) ([]client.Share, error) {
	return []client.Share{{Name: "a"}, {Name: "b"}}, nil
}
func (f *fake) Unshare(_ context.Context, root string) error { return f.unshare(root) }
func (f *fake) Share(ctx context.Context, r client.ShareRequest, p func(client.Progress)) (client.Share, error) {
	return f.share(ctx, r, p)
}
func (f *fake) Get(ctx context.Context, r client.GetRequest, p func(client.Progress)) (client.GetResult, error) {
	return f.get(ctx, r, p)
}
func (f *fake) Stop() { close(f.stopped) }

// serve runs the API of p in a fresh home and returns a client of it.
func serve(t *testing.T, p Peer, network Network) (*Server, *client.Client) {
	t.Helper()
	home, err := os.MkdirTemp("", "api") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(home) })
	s, err := Open(Config{Home: home, Network: network}, p)
	if err != nil {
		t.Fatal(err)
	}
	s.Serve()
	c, err := client.Open(home)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, c
}

func TestOpenAPIIsCurrent(t *testing.T) {
	_, doc := newHandler(&fake{})
	data, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	data = append(data, '\n')
	golden.Check(t, "openapi.json", data)
	if strings.Contains(string(data), "ErrorModel") {
		t.Error("the framework's own error shape is documented; ours is the only one")
	}
}

func TestQuestions(t *testing.T) {
	for _, network := range []Network{NetworkUnix, NetworkTCP} {
		t.Run(string(network), func(t *testing.T) {
			_, c := serve(t, &fake{unshare: func(root string) error {
				if root == "known" {
					return nil
				}
				return client.Errorf(client.KindNotFound, "see `shoal shares`", "no share %s", root)
			}}, network)
			ctx := t.Context()
			if s, err := c.Status(ctx); err != nil || s.Name != "ada" {
				t.Errorf("status: %+v, %v", s, err)
			}
			if shares, err := c.Shares(ctx); err != nil || len(shares) != 2 {
				t.Errorf("shares: %+v, %v", shares, err)
			}
			if err := c.Unshare(ctx, "known"); err != nil {
				t.Errorf("unshare: %v", err)
			}
			var e *client.Error
			if err := c.Unshare(ctx, "other"); !errors.As(err, &e) || e.Kind != client.KindNotFound || e.Hint == "" {
				t.Errorf("unshare of an unknown root: %#v", err)
			}
			if _, err := c.Doctor(ctx); client.KindOf(err) != client.KindInternal || err.Error() != "out of order" {
				t.Errorf("doctor: %#v", err)
			}
		})
	}
}

func TestEventsInOrder(t *testing.T) {
	_, c := serve(t, &fake{share: func(_ context.Context, r client.ShareRequest, progress func(client.Progress)) (client.Share, error) {
		for i := range 1000 {
			progress(client.Progress{Phase: "hashing", Done: int64(i)})
		}
		return client.Share{Path: r.Path, Root: "r"}, nil
	}}, NetworkUnix)
	var seen []int64
	share, err := c.Share(t.Context(), client.ShareRequest{Path: "/x"}, func(p client.Progress) { seen = append(seen, p.Done) })
	if err != nil || share.Path != "/x" || share.Root != "r" {
		t.Fatalf("share: %+v, %v", share, err)
	}
	if len(seen) == 0 || len(seen) > 10 || seen[len(seen)-1] != 999 {
		t.Errorf("progress should be sparse and end with the newest: %v", seen)
	}
}

func TestErrorEvent(t *testing.T) {
	_, c := serve(t, &fake{get: func(context.Context, client.GetRequest, func(client.Progress)) (client.GetResult, error) {
		return client.GetResult{}, client.Errorf(client.KindExists, "use --force", "taken")
	}}, NetworkUnix)
	_, err := c.Get(t.Context(), client.GetRequest{Link: "l", Dest: "/d"}, nil)
	var e *client.Error
	if !errors.As(err, &e) || e.Kind != client.KindExists || e.Hint != "use --force" {
		t.Errorf("get: %#v", err)
	}
}

func TestUnknownPathHasOurShape(t *testing.T) {
	handler, _ := newHandler(&fake{})
	for _, request := range []string{"GET /v1/nonsense", "PUT /v1/status", "GET /"} {
		method, path, _ := strings.Cut(request, " ")
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, path, nil))
		var e client.Error
		if err := json.NewDecoder(w.Body).Decode(&e); err != nil || e.Kind != client.KindNotFound || w.Code != 404 {
			t.Errorf("%s: %d, %+v, %v", request, w.Code, e, err)
		}
	}
}

func TestInvalidBodyHasOurShape(t *testing.T) {
	_, c := serve(t, &fake{}, NetworkUnix)
	_, err := c.Get(t.Context(), client.GetRequest{}, nil)
	if client.KindOf(err) != client.KindInvalid {
		t.Errorf("an empty link: %#v", err)
	}
}

// blocked is a peer whose get waits for its context and says why it ended.
func blocked() (f *fake, started, ended chan struct{}) {
	started, ended = make(chan struct{}), make(chan struct{})
	f = &fake{get: func(ctx context.Context, _ client.GetRequest, progress func(client.Progress)) (client.GetResult, error) {
		progress(client.Progress{Phase: "finding"})
		close(started)
		<-ctx.Done()
		close(ended)
		return client.GetResult{}, ctx.Err()
	}}
	return f, started, ended
}

func await(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(10 * time.Second):
		t.Fatal("waited in vain for: " + what)
	}
}

func TestDisconnectCancels(t *testing.T) {
	f, started, ended := blocked()
	_, c := serve(t, f, NetworkUnix)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-started
		cancel()
	}()
	if _, err := c.Get(ctx, client.GetRequest{Link: "l", Dest: "/d"}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("get: %v", err)
	}
	await(t, "the peer's get to be cancelled", ended)
}

func TestCloseEndsTransfers(t *testing.T) {
	f, started, _ := blocked()
	s, c := serve(t, f, NetworkUnix)
	failed := make(chan error, 1)
	go func() {
		_, err := c.Get(t.Context(), client.GetRequest{Link: "l", Dest: "/d"}, nil)
		failed <- err
	}()
	await(t, "get", started)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := <-failed; client.KindOf(err) != client.KindStopping {
		t.Errorf("get on a closing peer: %#v", err)
	}
	if _, err := client.Open(s.home); !errors.Is(err, client.ErrNoPeer) {
		t.Errorf("after close: %v", err)
	}
}

func TestDown(t *testing.T) {
	f := &fake{stopped: make(chan struct{})}
	_, c := serve(t, f, NetworkTCP)
	if d, err := c.Down(t.Context()); err != nil || d.PID != os.Getpid() {
		t.Errorf("down: %+v, %v", d, err)
	}
	await(t, "stop", f.stopped)
}

func TestOnlyTheOwnerReaches(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no modes")
	}
	s, _ := serve(t, &fake{}, NetworkUnix)
	for _, path := range []string{s.Endpoint().Address, filepath.Join(s.home, client.EndpointFile)} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if mode := info.Mode().Perm(); mode != 0o600 {
			t.Errorf("%s has mode %o", path, mode)
		}
	}
}

func TestLongHomeStillHasASocket(t *testing.T) {
	home := filepath.Join(t.TempDir(), strings.Repeat("long", 40))
	if err := os.MkdirAll(home, 0o700); err != nil {
		t.Fatal(err)
	}
	s, err := Open(Config{Home: home, Network: NetworkUnix}, &fake{})
	if err != nil {
		t.Fatal(err)
	}
	s.Serve()
	c, err := client.Open(home)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Status(t.Context()); err != nil {
		t.Error(err)
	}
	c.Close()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Dir(s.Endpoint().Address)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket's folder stays behind: %v", err)
	}
}

func TestGuardOnTCP(t *testing.T) {
	s, _ := serve(t, &fake{}, NetworkTCP)
	e := s.Endpoint()
	cases := []struct {
		name, host, origin, token string
		want                      int
	}{
		{"as the client does", e.Address, "", e.Token, 200},
		{"own page", e.Address, "http://" + e.Address, e.Token, 200},
		{"no token", e.Address, "", "", 403},
		{"wrong token", e.Address, "", e.Token + "x", 403},
		{"re-bound name", "evil.example", "", e.Token, 403},
		{"re-bound name with the port", "evil.example:" + e.Address[strings.LastIndex(e.Address, ":")+1:], "", e.Token, 403},
		{"another page", e.Address, "http://evil.example", e.Token, 403},
		{"sandboxed page", e.Address, "null", e.Token, 403},
		{"https look-alike", e.Address, "https://" + e.Address, e.Token, 403},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+e.Address+"/v1/status", nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Host = c.host
			r.Header.Set("Origin", c.origin)
			if c.origin == "" {
				r.Header.Del("Origin")
			}
			r.Header.Set(client.TokenHeader, c.token)
			resp, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if resp.StatusCode != c.want {
				t.Errorf("status %d, want %d", resp.StatusCode, c.want)
			}
			var e client.Error
			if c.want == 403 && (json.NewDecoder(resp.Body).Decode(&e) != nil || e.Kind != client.KindRefused) {
				t.Errorf("not our error: %+v", e)
			}
		})
	}
}

func TestEveryKindHasAStatus(t *testing.T) {
	for _, kind := range []client.Kind{
		client.KindInvalid, client.KindNotFound, client.KindExists, client.KindNoSpace, client.KindPermission,
		client.KindMissing, client.KindCorrupt, client.KindChanged, client.KindBusy, client.KindRefused,
		client.KindStopping, client.KindUnready,
	} {
		if statusOf(kind) == http.StatusInternalServerError {
			t.Errorf("%s has no status of its own", kind)
		}
	}
}
