package mount_test

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/shoal-os/shoal/storage/mount"
)

func TestGuard(t *testing.T) {
	const token = "secret-token"
	inside := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	tcp := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8080}
	port, err := mount.Guard(tcp, token, inside)
	if err != nil {
		t.Fatal(err)
	}
	socket, err := mount.Guard(&net.UnixAddr{Name: "x", Net: "unix"}, "", inside)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		guard   http.Handler
		url     string
		pass    string
		headers string
		want    int
	}{
		{"password", port, "http://127.0.0.1:8080/f", token, "", 418},
		{"localhost", port, "http://LOCALHOST:8080/f", token, "", 418},
		{"no password", port, "http://127.0.0.1:8080/f", "", "", 401},
		{"wrong password", port, "http://127.0.0.1:8080/f", token + "x", "", 401},
		{"token in the path", port, "http://127.0.0.1:8080/" + token + "/f", "", "", 418},
		{"token alone", port, "http://127.0.0.1:8080/" + token, "", "", 418},
		{"token later in the path", port, "http://127.0.0.1:8080/x/" + token, "", "", 401},
		{"name bound to loopback", port, "http://evil.example:8080/f", token, "", 403},
		{"no port", port, "http://127.0.0.1/f", token, "", 403},
		{"other port", port, "http://127.0.0.1:8081/f", token, "", 403},
		{"own page", port, "http://127.0.0.1:8080/f", token, "Origin: http://127.0.0.1:8080", 418},
		{"other page", port, "http://127.0.0.1:8080/f", token, "Origin: http://evil.example", 403},
		{"other server of this machine", port, "http://127.0.0.1:8080/f", token, "Origin: http://127.0.0.1:9090", 403},
		{"sandboxed page", port, "http://127.0.0.1:8080/f", token, "Origin: null", 403},
		{"image on another page", port, "http://127.0.0.1:8080/f", token, "Sec-Fetch-Site: cross-site", 403},
		{"typed", port, "http://127.0.0.1:8080/f", token, "Sec-Fetch-Site: none", 418},
		{"socket", socket, "http://anything/f", "", "", 418},
		{"page on a socket", socket, "http://anything/f", "", "Origin: http://anything", 403},
	} {
		r := httptest.NewRequestWithContext(t.Context(), "GET", c.url, nil)
		if c.pass != "" {
			r.SetBasicAuth("anybody", c.pass)
		}
		if name, value, ok := strings.Cut(c.headers, ": "); ok {
			r.Header.Set(name, value)
		}
		w := httptest.NewRecorder()
		c.guard.ServeHTTP(w, r)
		if w.Code != c.want {
			t.Errorf("%s: %d; want %d", c.name, w.Code, c.want)
		}
		if (w.Code == 401) != (w.Header().Get("WWW-Authenticate") != "") {
			t.Errorf("%s: %v", c.name, w.Header())
		}
	}
	for _, bad := range []net.Addr{&net.TCPAddr{IP: net.IPv4zero, Port: 1}, &net.TCPAddr{IP: net.IPv4(192, 168, 1, 1), Port: 1}} {
		if _, err := mount.Guard(bad, token, inside); err == nil {
			t.Errorf("%v may be served", bad)
		}
	}
	if _, err := mount.Guard(tcp, "", inside); err == nil {
		t.Error("a port without a token")
	}
}
