package api

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/node/api/client"
)

const (
	// memberConnsMax bounds the open connections of all members together.
	memberConnsMax = 64
	// memberQueue bounds those that wait to be taken.
	memberQueue = 16
)

// remoteRoles is the one place that says what members may ask of this peer, and
// from which role on. What is not here is for the owner of the home alone: a
// share or a get would read or write any path of this machine.
var remoteRoles = map[string]ident.Role{
	"status": ident.RoleTerminal,
	"id":     ident.RoleTerminal,
	"doctor": ident.RoleTerminal,
	"shares": ident.RoleTerminal,
	"pool":   ident.RoleTerminal,
	"cat":    ident.RoleTerminal,

	"file-list":    ident.RoleTerminal,
	"file-stat":    ident.RoleTerminal,
	"file-history": ident.RoleTerminal,
	"file-pins":    ident.RoleTerminal,
	"file-space":   ident.RoleTerminal,
	"file-what-if": ident.RoleTerminal,
	"file-write":   ident.RoleTerminal,
	"file-mkdir":   ident.RoleTerminal,
	"file-mv":      ident.RoleTerminal,
	"file-cp":      ident.RoleTerminal,
	"file-rm":      ident.RoleTerminal,
	"file-restore": ident.RoleTerminal,
	"file-purge":   ident.RoleAdmin,
	"file-pin":     ident.RoleAdmin,
	"file-unpin":   ident.RoleAdmin,
	"file-scrub":   ident.RoleAdmin,
	"file-gc":      ident.RoleAdmin,

	"jobs":        ident.RoleTerminal,
	"job":         ident.RoleTerminal,
	"job-watch":   ident.RoleTerminal,
	"job-results": ident.RoleTerminal,
	"job-output":  ident.RoleTerminal,
	"job-logs":    ident.RoleTerminal,
	"job-why":     ident.RoleTerminal,
	"worker":      ident.RoleTerminal,
	"job-save":    ident.RoleTerminal,
	"job-kill":    ident.RoleAdmin, // this peer would do it in its own name

	"drill":      ident.RoleTerminal,
	"drill-ask":  ident.RoleMember,
	"drill-fall": ident.RoleMember, // if the owner of this peer allows drills at all

	"unshare":     ident.RoleAdmin,
	"down":        ident.RoleAdmin,
	"invite":      ident.RoleAdmin,
	"evict":       ident.RoleAdmin,
	"promote":     ident.RoleAdmin,
	"pool-events": ident.RoleAdmin,
}

// RoleOf says what a caller may do, at the moment of each request: [ident.RoleNone]
// once it is no member any more.
type RoleOf func() ident.Role

// Members serves the API to members of the pool, over connections that the
// pool's gate let in.
type Members struct {
	http   *http.Server
	cancel context.CancelFunc
	served chan struct{}
	queue  chan net.Conn
	done   chan struct{}

	mu    sync.Mutex
	open  int
	ended bool
}

var _ net.Listener = (*Members)(nil)

// ServeMembers makes the API of p ready for members. Handle brings them.
func ServeMembers(p Peer) *Members {
	handler, _ := newHandler(p)
	ctx, cancel := context.WithCancel(context.Background())
	m := &Members{cancel: cancel, served: make(chan struct{}), queue: make(chan net.Conn, memberQueue), done: make(chan struct{})}
	m.http = &http.Server{
		Handler:           forMembers(handler),
		ReadHeaderTimeout: headerTimeout,
		MaxHeaderBytes:    headerBytesMax,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			ctx = context.WithValue(ctx, callerIDKey{}, c.RemoteAddr().String())
			return context.WithValue(ctx, callerKey{}, c.(*memberConn).role)
		},
	}
	go func() {
		defer close(m.served)
		_ = m.http.Serve(m)
	}()
	return m
}

// Handle serves one connection, and returns before it ends.
func (m *Members) Handle(c net.Conn, role RoleOf) {
	if !m.enqueue(&memberConn{Conn: c, role: role, left: sync.OnceFunc(m.left)}) {
		_ = c.Close()
	}
}

// enqueue has a connection taken, unless there are too many or the listening has
// ended: what is queued after that, nobody takes or closes.
func (m *Members) enqueue(c *memberConn) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ended || m.open >= memberConnsMax {
		return false
	}
	select {
	case m.queue <- c:
		m.open++
		return true
	default:
		return false
	}
}

func (m *Members) left() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.open--
}

// Accept implements [net.Listener].
func (m *Members) Accept() (net.Conn, error) {
	select {
	case c := <-m.queue:
		return c, nil
	case <-m.done:
		return nil, net.ErrClosed
	}
}

// Addr implements [net.Listener].
func (m *Members) Addr() net.Addr { return memberAddr{} }

// Close ends the listening; requests under way go on.
func (m *Members) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.ended {
		m.ended = true
		close(m.done)
	}
	return nil
}

// Shut cancels what is under way, lets the answers out and closes everything.
func (m *Members) Shut() error {
	m.cancel()
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	err := m.http.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = m.http.Close()
	}
	<-m.served
	for {
		select {
		case c := <-m.queue:
			_ = c.Close()
		default:
			return err
		}
	}
}

type memberAddr struct{}

func (memberAddr) Network() string { return "libp2p" }
func (memberAddr) String() string  { return "pool" }

// memberConn is a connection of a member.
type memberConn struct {
	net.Conn
	role RoleOf
	left func()
}

func (c *memberConn) Close() error {
	c.left()
	return c.Conn.Close()
}

type (
	callerKey   struct{} // its role
	callerIDKey struct{} // its peer id
)

// callerOf returns the peer id of the member that asks; empty is the owner of the home.
func callerOf(ctx context.Context) string {
	id, _ := ctx.Value(callerIDKey{}).(string)
	return id
}

// forMembers stands before every request of a member: there is one, its role is
// known, and it is no web page.
func forMembers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		role, ok := r.Context().Value(callerKey{}).(RoleOf)
		if !ok || role() == ident.RoleNone || r.Header.Get("Origin") != "" {
			answerError(w, &client.Error{Kind: client.KindRefused, Text: "only members of the pool may ask this peer"})
			return
		}
		next.ServeHTTP(w, r)
	})
}

// isOwner reports whether a request came by the local API, not from a member.
func isOwner(ctx context.Context) bool { return ctx.Value(callerKey{}) == nil }

// checkRole is the middleware that holds members to remoteRoles.
func checkRole(ctx huma.Context, next func(huma.Context)) {
	role, remote := ctx.Context().Value(callerKey{}).(RoleOf)
	if !remote {
		next(ctx)
		return
	}
	least, open := remoteRoles[ctx.Operation().OperationID]
	var refusal *client.Error
	switch have := role(); {
	case !open:
		refusal = &client.Error{Kind: client.KindRefused, Text: "only the owner of this peer may do this", Hint: "run the command on that machine"}
	case have < least:
		refusal = &client.Error{Kind: client.KindRefused, Text: "this needs the role " + least.String() + ", and yours is " + have.String(),
			Hint: "ask an admin of the pool; `shoal peers` shows who is"}
	default:
		next(ctx)
		return
	}
	_, w := humago.Unwrap(ctx)
	answerError(w, refusal)
}
