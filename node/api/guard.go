package api

import (
	"crypto/subtle"
	"encoding/json"
	"net"
	"net/http"
	"net/url"

	"github.com/shoal-os/shoal/node/api/client"
)

// guard stands before every request. A Unix socket is guarded by its mode; a
// port on loopback can be reached by every user and, through a browser, by
// every web page, so there each request must
//   - carry the token (other users),
//   - name a loopback host (a page whose name was re-bound to 127.0.0.1), and
//   - come from no page but our own (Origin).
//
// The Origin is checked on the socket as well: nothing that has one belongs there.
func guard(e client.Endpoint, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if reason := refusal(e, r); reason != "" {
			answerError(w, &client.Error{
				Kind: client.KindRefused, Text: reason, Hint: "token and address are in api.json in the peer's home",
			})
			return
		}
		next.ServeHTTP(w, r)
	})
}

// refusal returns why a request is refused, or "".
func refusal(e client.Endpoint, r *http.Request) string {
	if !originAllowed(e, r.Header.Get("Origin")) {
		return "requests from other web pages are refused"
	}
	if e.Network != "tcp" {
		return ""
	}
	if !hostAllowed(e, r.Host) {
		return "the Host header must be " + e.Address
	}
	got := r.Header.Get(client.TokenHeader)
	if e.Token == "" || subtle.ConstantTimeCompare([]byte(got), []byte(e.Token)) != 1 {
		return "the header " + client.TokenHeader + " is missing or wrong"
	}
	return ""
}

func hostAllowed(e client.Endpoint, host string) bool {
	_, port, err := net.SplitHostPort(e.Address)
	if err != nil {
		return false
	}
	return host == e.Address || host == net.JoinHostPort("localhost", port)
}

func originAllowed(e client.Endpoint, origin string) bool {
	if origin == "" {
		return true
	}
	u, err := url.Parse(origin)
	return err == nil && e.Network == "tcp" && u.Scheme == "http" && hostAllowed(e, u.Host)
}

// answerError answers a request that no operation takes, in the one shape of error.
func answerError(w http.ResponseWriter, e *client.Error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(statusOf(e.Kind))
	_ = json.NewEncoder(w).Encode(e)
}
