package api

import (
	"context"
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/shoal-os/shoal/node/api/client"
	"golang.org/x/net/netutil"
)

const (
	headerTimeout   = 5 * time.Second
	headerBytesMax  = 16 << 10
	connectionsMax  = 64
	shutdownTimeout = 3 * time.Second
)

// Config of a [Server].
type Config struct {
	Home    string  // the peer's folder; must exist
	Network Network // zero: the system's own, see NetworkDefault
	// Web answers what is below /ipfs/, behind the same guard; nil for nothing.
	Web http.Handler
	// Unlisted keeps home/api.json as it is: only who was told the endpoint
	// finds the server.
	Unlisted bool
}

// Server is an API that was opened.
type Server struct {
	home   string
	door   *door
	http   *http.Server
	cancel context.CancelFunc
	served chan struct{}
}

// Open opens the API of p and lists it in home/api.json; who calls waits until [Server.Serve]. The caller holds
// the home's lock, so an older file or socket belongs to a peer that is gone.
func Open(cfg Config, p Peer) (*Server, error) {
	d, err := openDoor(cfg.Home, cfg.Network)
	if err != nil {
		return nil, err
	}
	if !cfg.Unlisted {
		if err := d.endpoint.Write(cfg.Home); err != nil {
			d.close()
			return nil, err
		}
		d.remove = slices.Insert(d.remove, 0, filepath.Join(cfg.Home, client.EndpointFile))
	}
	handler, _ := newHandler(p)
	ctx, cancel := context.WithCancel(context.Background())
	s := &Server{home: cfg.Home, door: d, cancel: cancel, served: make(chan struct{})}
	s.http = &http.Server{
		Handler:           guard(d.endpoint, withWeb(handler, cfg.Web)),
		ReadHeaderTimeout: headerTimeout,
		MaxHeaderBytes:    headerBytesMax,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	return s, nil
}

// Serve begins to answer. It is called once, when p knows its server: a status tells where the API is.
func (s *Server) Serve() {
	go func() {
		defer close(s.served)
		_ = s.http.Serve(netutil.LimitListener(s.door.Listener, connectionsMax))
	}()
}

// Endpoint returns where the API listens.
func (s *Server) Endpoint() client.Endpoint { return s.door.endpoint }

// Close ends a server that serves: it cancels what is under way, lets the answers out, and removes
// home/api.json and the socket.
func (s *Server) Close() error {
	s.door.unlist()
	s.cancel()
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	err := s.http.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = s.http.Close()
	}
	<-s.served
	return errors.Join(err, s.door.close())
}

// withWeb sends what is below /ipfs/ to web. It is no part of the document: its
// specifications are others'.
func withWeb(handler, web http.Handler) http.Handler {
	if web == nil {
		return handler
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/ipfs/") {
			web.ServeHTTP(w, r)
			return
		}
		handler.ServeHTTP(w, r)
	})
}
