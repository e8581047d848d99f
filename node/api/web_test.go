package api

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"

	"github.com/shoal-os/shoal/node/api/client"
)

// TestWebIsBehindTheGuard: what is below /ipfs/ is the web handler's, for who may
// come in, and a client's Forward may.
func TestWebIsBehindTheGuard(t *testing.T) {
	for _, network := range []Network{NetworkUnix, NetworkTCP} {
		home, err := os.MkdirTemp("", "api")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(home) })
		web := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, r.Method+" "+r.URL.String()+" "+r.Header.Get("Range"))
		})
		s, err := Open(Config{Home: home, Network: network, Web: web}, &fake{})
		if err != nil {
			t.Fatal(err)
		}
		s.Serve()
		c, err := client.Open(home)
		if err != nil {
			t.Fatal(err)
		}
		ask := func(path string) *httptest.ResponseRecorder {
			r := httptest.NewRequest(http.MethodGet, path, nil)
			r.Header.Set("Range", "bytes=1-2")
			r.Header.Set("Origin", "http://127.0.0.1:5")
			w := httptest.NewRecorder()
			c.Forward().ServeHTTP(w, r)
			return w
		}
		if w := ask("/ipfs/bafy/a%20b?format=raw"); w.Code != 200 || w.Body.String() != "GET /ipfs/bafy/a%20b?format=raw bytes=1-2" {
			t.Errorf("%s: %d %s", network, w.Code, w.Body)
		}
		if w := ask("/v1/id"); w.Code != 200 {
			t.Errorf("%s: the API itself: %d", network, w.Code)
		}
		if network == NetworkTCP {
			resp, err := http.Get("http://" + c.Endpoint().Address + "/ipfs/x")
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusForbidden {
				t.Errorf("without the token: %s", resp.Status)
			}
		}
		c.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if w := ask("/ipfs/x"); w.Code != http.StatusBadGateway {
			t.Errorf("%s: after the peer's end: %d %s", network, w.Code, w.Body)
		}
	}
}
