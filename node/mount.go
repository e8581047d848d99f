package node

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/netutil"

	"github.com/shoal-os/shoal/dht/loopback"
	"github.com/shoal-os/shoal/node/api/client"
	"github.com/shoal-os/shoal/storage/mount"
	"github.com/shoal-os/shoal/storage/repair"
)

const (
	davHeaderTimeout = 5 * time.Second
	davIdleTimeout   = 2 * time.Minute
	davHeaderMax     = 16 << 10
	davConnsMax      = 128
	davProps         = "webdav-props.json"
)

// Mount serves the pool's files over WebDAV on a port of loopback until ctx ends. It calls ready once, when it listens.
func (n *Node) Mount(ctx context.Context, req client.MountRequest, ready func(client.Mounted) error) error {
	if _, err := n.circle(); err != nil {
		return err
	}
	if err := loopback.Check(req.Listen); err != nil {
		return client.Wrap(client.KindInvalid, err, "such as 127.0.0.1:8080; port 0 is any")
	}
	l, err := net.Listen("tcp", req.Listen)
	if err != nil {
		return client.Wrap(client.KindInvalid, err, "is the port taken? 127.0.0.1:0 finds a free one")
	}
	defer l.Close()
	token := strings.ToLower(rand.Text())
	guarded, err := mount.Guard(l.Addr(), token, &davDoor{node: n, token: token, readOnly: req.ReadOnly})
	if err != nil {
		return client.Wrap(client.KindInvalid, err, "")
	}
	server := &http.Server{
		Handler: guarded, ReadHeaderTimeout: davHeaderTimeout, IdleTimeout: davIdleTimeout, MaxHeaderBytes: davHeaderMax,
		ErrorLog: log.New(io.Discard, "", 0),
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(netutil.LimitListener(l, davConnsMax)) }()
	err = ready(client.Mounted{URL: "http://" + l.Addr().String() + "/", User: "shoal", Password: token})
	if err == nil {
		select {
		case <-ctx.Done():
		case err = <-ended:
		}
	}
	return errors.Join(err, server.Close())
}

// davDoor leads to the files of the pool that this peer is in at the time of each request. Below the token as a first
// element they are a second time, for clients that send no password.
type davDoor struct {
	node     *Node
	token    string
	readOnly bool

	mu    sync.Mutex
	of    *circle
	faces [2]http.Handler // at the top, and below the token
}

// ServeHTTP implements [http.Handler].
func (d *davDoor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	faces, err := d.open()
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	if r.URL.Path == "/"+d.token || strings.HasPrefix(r.URL.Path, "/"+d.token+"/") {
		faces[1].ServeHTTP(w, r)
		return
	}
	faces[0].ServeHTTP(w, r)
}

func (d *davDoor) open() ([2]http.Handler, error) {
	c, err := d.node.circle()
	if err != nil {
		return d.faces, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.of != c {
		files := mount.Tree(c.tree, mount.TreeOptions{
			Space: func(context.Context) (mount.Space, error) {
				u := d.node.pieces.Usage()
				return mount.Space{Free: u.Free, Used: u.Held}, nil
			},
			Away: func(err error) bool { return errors.Is(err, repair.ErrNotHere) },
		})
		opt := mount.Options{ReadOnly: d.readOnly, PropsFile: filepath.Join(c.dir, davProps), Log: d.node.cfg.Log, Now: d.node.cfg.Now}
		d.faces[0] = mount.Handler(files, opt)
		opt.Prefix, opt.PropsFile = "/"+d.token, ""
		d.faces[1] = mount.Handler(files, opt)
		d.of = c
	}
	return d.faces, nil
}
