package client

import (
	"io"
	"log"
	"net/http"
	"net/http/httputil"
)

// Forward returns a handler that passes requests on to the peer as they are, with
// what lets them in there, and the answers back as they come. Whoever uses it
// decides which requests these may be.
func (c *Client) Forward() http.Handler {
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = "http", c.host(), ""
			r.Out.Header.Del("Origin") // it was for the door outside
			if c.endpoint.Token != "" {
				r.Out.Header.Set(TokenHeader, c.endpoint.Token)
			}
		},
		Transport:     c.http.Transport,
		FlushInterval: -1, // a player waits for each byte
		ErrorLog:      log.New(io.Discard, "", 0),
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			w.Header().Set("X-Content-Type-Options", "nosniff")
			w.WriteHeader(http.StatusBadGateway)
			_, _ = io.WriteString(w, c.unreachable(r.Context(), err).Error()+"\n")
		},
	}
}
