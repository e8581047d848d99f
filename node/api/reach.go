package api

import (
	"context"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"time"

	"github.com/shoal-os/shoal/node/api/client"
)

// Reacher leads to other members. Find resolves a name, the beginning of one, or
// a peer id to a member's id; self reports that it is this peer. Dial connects to
// a member's API by its id.
type Reacher interface {
	Find(ctx context.Context, member string) (id string, self bool, err error)
	Dial(ctx context.Context, id string) (net.Conn, error)
}

const (
	reachPattern  = "/v1/peers/{member}/api/"
	reachIdle     = 30 * time.Second
	reachIdleMax  = 16 // connections kept for the next request, to all members together
	reachIdleEach = 2
)

// reach passes requests on to other members' APIs: /v1/peers/NAME/api/v1/status
// is /v1/status of NAME. It is no operation of the document, as it is all of them.
func reach(p Reacher, local http.Handler) http.Handler {
	transport := &http.Transport{
		Proxy: nil,
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			id, _, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			return p.Dial(ctx, id)
		},
		DisableCompression:  true,
		MaxIdleConns:        reachIdleMax,
		MaxIdleConnsPerHost: reachIdleEach,
		IdleConnTimeout:     reachIdle,
	}
	proxy := &httputil.ReverseProxy{
		Transport:     transport,
		FlushInterval: -1, // events
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme = "http"
			r.Out.Host = "shoal"
			for _, h := range []string{client.TokenHeader, "Origin", "Cookie", "Authorization"} {
				r.Out.Header.Del(h)
			}
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) { answerError(w, asError(err)) },
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !isOwner(r.Context()) {
			answerError(w, &client.Error{Kind: client.KindRefused, Text: "a member's request is not passed on to another member"})
			return
		}
		id, self, err := p.Find(r.Context(), r.PathValue("member"))
		if err != nil {
			answerError(w, asError(err))
			return
		}
		out := r.Clone(r.Context())
		_, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v1/peers/"), "/api/")
		out.URL.Path, out.URL.RawPath = "/"+rest, ""
		out.URL.Host = id
		if self {
			local.ServeHTTP(w, out)
			return
		}
		proxy.ServeHTTP(w, out)
	})
}
