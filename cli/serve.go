package cli

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoal-os/shoal/dht/loopback"
	"github.com/shoal-os/shoal/node/api/client"
	"github.com/shoal-os/shoal/node/web"
	"github.com/shoal-os/shoal/storage/chunk"
)

const (
	serveHeaderTimeout = 5 * time.Second
	serveIdleTimeout   = 2 * time.Minute
	serveHeaderMax     = 16 << 10
	serveConnsMax      = 128
	sharesAge          = 2 * time.Second // how old a list of shares --all goes by
)

func newServe(a *app) *cobra.Command {
	var flags peerFlags
	var all bool
	var addr string
	cmd := &cobra.Command{
		Use:   "serve LINK…",
		Short: "Open links in a browser or player while they arrive",
		Long: "Serves what links name over HTTP on this machine, prints the URL as the only line on\n" +
			"stdout, and goes on until ctrl-C. Files can be played and skipped in before they are\n" +
			"here: what is needed is fetched first, verified, and kept for a while. Pages among\n" +
			"the files are shown without their scripts. For programs, ?format=raw and ?format=car\n" +
			"give blocks to verify, as the IPFS gateway specifications have them. With --all it\n" +
			"serves everything that this peer shares. Only this machine can connect.",
		Example: "  shoal serve 'shoal:bafy…?n=film.mkv'\n  shoal serve --all --http 127.0.0.1:8080",
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			links, err := serveLinks(args, all)
			if err != nil {
				return err
			}
			if err := loopback.Check(addr); err != nil {
				return usagef("such as --http 127.0.0.1:8080", "--http %s: %s", clean(addr), clean(err.Error()))
			}
			s, err := a.join(cmd.Context(), flags.config(a))
			if err != nil {
				return err
			}
			defer closeSession(s, &err)
			return a.serve(cmd.Context(), s, addr, links)
		},
	}
	flags.add(cmd.Flags())
	cmd.Flags().BoolVar(&all, "all", false, "serve everything that this peer shares")
	cmd.Flags().StringVar(&addr, "http", "127.0.0.1:0", "where to listen on this machine; port 0 is any")
	return cmd
}

// serveLinks checks the links before anything is started for them. None means all shares.
func serveLinks(args []string, all bool) ([]chunk.Link, error) {
	if all == (len(args) > 0) {
		return nil, usagef("`shoal serve LINK` or `shoal serve --all`", "serve takes links, or --all")
	}
	var links []chunk.Link
	for _, arg := range args {
		link, err := chunk.ParseLink(arg)
		if err != nil {
			return nil, usagef("a link looks like shoal:bafy…?n=NAME and needs quotes in most shells; a bare CID works too", "%s", clean(err.Error()))
		}
		links = append(links, link)
	}
	return links, nil
}

// serve is the HTTP server's life.
func (a *app) serve(ctx context.Context, s *session, addr string, links []chunk.Link) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return client.Wrap(client.KindInvalid, fmt.Errorf("serve: %w", err), "is the port taken? --http 127.0.0.1:0 finds a free one")
	}
	defer l.Close()
	roots := func(context.Context) []chunk.Link { return links }
	if links == nil {
		roots = (&shareList{s: s}).links
	}
	front, err := web.NewFront(l.Addr(), roots, s.Forward())
	if err != nil {
		return err
	}
	base := "http://" + l.Addr().String()
	if err := a.printServed(base, links); err != nil {
		return err
	}
	server := &http.Server{
		Handler: front, ReadHeaderTimeout: serveHeaderTimeout, IdleTimeout: serveIdleTimeout, MaxHeaderBytes: serveHeaderMax,
		ErrorLog: log.New(io.Discard, "", 0),
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(&fewConns{Listener: l, slots: make(chan struct{}, serveConnsMax)}) }()
	a.notef("serving on this machine until ctrl-C")
	var told <-chan struct{}
	if s.own != nil {
		told = s.own.Done()
	}
	select {
	case <-ctx.Done():
	case <-told:
		a.notef("stopped serving: the peer was told to stop")
	case err := <-ended:
		return fmt.Errorf("serve: %w", err)
	}
	return server.Close()
}

// printServed prints where to look: at the one link, or at the list of them.
func (a *app) printServed(base string, links []chunk.Link) error {
	at := base + "/"
	if len(links) == 1 {
		at = base + web.Path(links[0])
	}
	if a.json {
		return a.printJSON(struct {
			URL string `json:"url"`
		}{at})
	}
	_, err := fmt.Fprintln(a.out, at)
	return err
}

// shareList is what --all serves: the peer's shares, asked for now and then.
type shareList struct {
	s *session

	mu    sync.Mutex
	last  []chunk.Link
	asked time.Time
}

func (l *shareList) links(ctx context.Context) []chunk.Link {
	l.mu.Lock()
	defer l.mu.Unlock()
	if time.Since(l.asked) < sharesAge {
		return l.last
	}
	shares, err := l.s.Shares(ctx)
	if err != nil {
		return l.last
	}
	l.last, l.asked = nil, time.Now()
	for _, share := range shares {
		if link, err := chunk.ParseLink(share.Link); err == nil {
			l.last = append(l.last, link)
		}
	}
	return l.last
}

// fewConns bounds the connections that are open at a time; more have to wait.
type fewConns struct {
	net.Listener
	slots chan struct{}
}

func (l *fewConns) Accept() (net.Conn, error) {
	l.slots <- struct{}{}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &countedConn{Conn: c, done: sync.OnceFunc(func() { <-l.slots })}, nil
}

type countedConn struct {
	net.Conn
	done func()
}

func (c *countedConn) Close() error {
	defer c.done()
	return c.Conn.Close()
}
