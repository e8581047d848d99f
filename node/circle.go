package node

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/shoal-os/shoal/dht"
	"github.com/shoal-os/shoal/dht/gossip"
	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/dht/pool"
	"github.com/shoal-os/shoal/dht/roster"
	"github.com/shoal-os/shoal/node/api"
	"github.com/shoal-os/shoal/node/api/client"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/directory"
	"github.com/shoal-os/shoal/storage/quorum"
	"github.com/shoal-os/shoal/storage/repair"
	"github.com/shoal-os/shoal/storage/tree"
	"github.com/shoal-os/shoal/tasks"
	"github.com/shoal-os/shoal/tasks/exec"
	"github.com/shoal-os/shoal/tasks/keep"
)

const (
	// namesDir holds a folder of names for each pool that this peer is in, which is one, and a second for a moment.
	namesDir  = "names"
	newsTopic = "news"

	// apiProtocol carries the API between members, as HTTP/1.1.
	apiProtocol protocol.ID = "/shoal/api/1"
)

// circle is one membership with all that hangs on it: the pool, its names, the API for its members. Joining or leaving a
// pool ends it, and another takes its place while the rest of the peer runs on.
type circle struct {
	pool    *pool.Pool
	names   *directory.Directory
	repair  *repair.Repair
	tree    *tree.Tree
	keeper  *keep.Keeper
	quorum  *quorum.Engine
	exec    *exec.Pool
	tasks   *tasks.Tasks
	members *api.Members
	dir     string // of the names
	close   func() error
}

// openCircle assembles a membership, leaves first.
func (n *Node) openCircle() (_ *circle, err error) {
	c := &circle{}
	opened := closers{log: n.cfg.Log}
	defer func() {
		if err != nil {
			err = errors.Join(err, opened.close())
		}
	}()
	offer := newOffer(n)
	c.pool, err = pool.Open(pool.Config{
		Home: n.cfg.Home, Identity: n.ident, Host: n.host, Finder: finder{n.dht},
		Lends: offer.lends, Files: n.files, Confirm: n.confirmJoin, Joined: n.noteJoined, Now: n.cfg.Now,
	})
	offer.opened(c.pool)
	if err != nil {
		return nil, poolFileError(err)
	}
	opened.add("pool", c.pool.Close)
	opened.add("pool watch", stopper(c.pool.Watch(n.noteChange)))

	news, err := c.pool.JoinTopic(newsTopic, func(_ peer.ID, data []byte) error { return directory.CheckNews(data) })
	if err != nil {
		return nil, fmt.Errorf("news: %w", err)
	}
	opened.add("news", news.Close)

	id := c.pool.ID()
	c.dir = filepath.Join(n.cfg.Home, namesDir, id.String())
	if err := os.MkdirAll(c.dir, homeMode); err != nil {
		return nil, homeError(n.cfg.Home, err)
	}
	c.names, err = directory.Open(directory.Config{
		Dir: c.dir, Self: n.ident, Pool: id,
		Members: c.pool, Streams: c.pool, Presence: presence{c.pool}, News: newsroom{news}, Now: n.cfg.Now, Boot: pool.BootTime,
	})
	if err != nil {
		return nil, openError(err)
	}
	opened.add("names", c.names.Close)
	c.pool.UseRecords(records{c.names})

	if err := n.openFiles(c, &opened); err != nil {
		return nil, err
	}
	if err := n.openWork(c, &opened); err != nil {
		return nil, err
	}

	c.members = api.ServeMembers(n)
	opened.add("members' api", c.members.Shut)
	c.pool.HandleFor(apiProtocol, ident.RoleTerminal, c.serveAPI)
	c.close = sync.OnceValue(opened.close)
	return c, nil
}

// poolFileError adds what a person can do about a pool file that cannot be used.
func poolFileError(err error) error {
	var state *pool.StateError
	if errors.As(err, &state) {
		return client.Wrap(client.KindHome, err, state.Hint())
	}
	return fmt.Errorf("pool: %w", err)
}

func stopper(stop func()) func() error { return func() error { stop(); return nil } }

// serveAPI hands a member's stream to the API. The role is looked up again for each request, as it may have changed.
func (c *circle) serveAPI(s network.Stream, m roster.Member) {
	c.members.Handle(streamConn{s}, func() ident.Role {
		if now, ok := c.pool.Member(m.ID); ok {
			return now.Role
		}
		return ident.RoleNone
	})
}

// errNoCircle is the answer while there is no membership to ask: in an offline peer, and between two.
func errNoCircle(offline bool) error {
	if offline {
		return client.Errorf(client.KindUnready, "start the peer with `shoal up --detach`", "this peer is offline and takes no part in a pool")
	}
	return client.Errorf(client.KindUnready, "try again in a moment", "the peer is changing its pool")
}

// circle returns the present membership.
func (n *Node) circle() (*circle, error) {
	if c := n.current.Load(); c != nil {
		return c, nil
	}
	if err := n.errFallen(); err != nil {
		return nil, err
	}
	return nil, errNoCircle(n.cfg.Offline)
}

// startCircle opens the membership that the home holds, unless the peer is offline.
func (n *Node) startCircle() error {
	if n.cfg.Offline {
		return nil
	}
	c, err := n.openCircle()
	if err != nil {
		return err
	}
	n.current.Store(c)
	return nil
}

// endCircle closes the present membership.
func (n *Node) endCircle() error {
	n.changing.Lock()
	defer n.changing.Unlock()
	if c := n.current.Swap(nil); c != nil {
		return c.close()
	}
	return nil
}

// move has change end the present membership, and takes up what the home holds then. When change fails, nothing changes.
func (n *Node) move(change func(*circle) error) (*circle, error) {
	n.changing.Lock()
	defer n.changing.Unlock()
	c, err := n.circle()
	if err != nil {
		return nil, err
	}
	if err := change(c); err != nil {
		return nil, err
	}
	n.current.Store(nil)
	old := c.pool.ID()
	if err := c.close(); err != nil {
		n.cfg.Log.Warn("the old pool did not close well", "err", err)
	}
	next, err := n.openCircle()
	if err != nil {
		return nil, client.Wrap(client.KindInternal, fmt.Errorf("the pool changed, but cannot be used: %w", err), "start the peer again")
	}
	n.current.Store(next)
	if next.pool.ID() != old {
		if err := os.RemoveAll(c.dir); err != nil {
			n.cfg.Log.Warn("the names of the old pool were not removed", "err", err)
		}
		n.setAside()
	}
	return next, nil
}

// setAside puts what this peer keeps of the files of a pool that it left where nobody sees it. For a day it can still be
// had back: by joining that pool again.
func (n *Node) setAside() {
	var ids []chunk.CID
	for p := range n.pieces.All() {
		ids = append(ids, p.ID)
	}
	if err := n.pieces.Quarantine(ids...); err != nil {
		n.cfg.Log.Warn("files of the old pool were not put aside", "err", err)
	}
}

// preferred says that members are served before strangers.
func (n *Node) preferred(id peer.ID) bool {
	c := n.current.Load()
	return c != nil && c.pool.IsMember(id)
}

// files counts what would be lost with the pool: its names, but for those about the membership itself.
func (n *Node) files() int {
	count := 0
	if c := n.current.Load(); c != nil {
		for r := range c.names.Scan("") {
			if !aboutMembers(r.Key) {
				count++
			}
		}
	}
	return count
}

func aboutMembers(key string) bool {
	for _, prefix := range []string{"member/", "admin/", "evict/", "left/", "secret/", "lends/"} {
		if strings.HasPrefix(key, prefix) {
			return true
		}
	}
	return false
}

// finder is the DHT as the pool wants it.
type finder struct{ *dht.DHT }

func (f finder) Seed(key [32]byte)   { f.DHT.Seed(dht.Key(key)) }
func (f finder) Unseed(key [32]byte) { f.DHT.Unseed(dht.Key(key)) }
func (f finder) FindProviders(ctx context.Context, key [32]byte) iter.Seq2[peer.AddrInfo, error] {
	return f.DHT.FindProviders(ctx, dht.Key(key))
}

// presence is the pool as the directory wants it: who is there.
type presence struct{ pool *pool.Pool }

func (p presence) Connected() []peer.ID {
	var out []peer.ID
	for _, m := range p.pool.Members() {
		if !m.Self && m.State == roster.Online {
			out = append(out, m.ID)
		}
	}
	return out
}

func (p presence) OnConnected(f func(peer.ID)) (stop func()) { return p.pool.OnConnected(f) }

// newsroom is a topic as the directory wants it.
type newsroom struct{ topic *gossip.Topic[[]byte] }

func (r newsroom) Publish(ctx context.Context, data []byte) error { return r.topic.Publish(ctx, data) }

func (r newsroom) Next(ctx context.Context) (peer.ID, []byte, error) {
	m, err := r.topic.Next(ctx)
	return m.From, m.Value, err
}

// records is the directory as the pool wants it.
type records struct{ names *directory.Directory }

func (r records) Put(key string, value []byte) error {
	if old, ok := r.names.Get(key); ok && string(old.Value) == string(value) {
		return nil
	}
	return r.names.Put(key, value)
}

func (r records) Scan(prefix string) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		for rec := range r.names.Scan(prefix) {
			if !yield(rec.Key, rec.Value) {
				return
			}
		}
	}
}

func (r records) Watch(prefix string, f func(string)) (stop func()) {
	return r.names.Watch(prefix, func(rec *directory.Record) { f(rec.Key) })
}

// streamConn is a stream as a connection.
type streamConn struct{ network.Stream }

func (s streamConn) LocalAddr() net.Addr  { return memberAddr(s.Conn().LocalPeer().String()) }
func (s streamConn) RemoteAddr() net.Addr { return memberAddr(s.Conn().RemotePeer().String()) }

// Close ends both directions: what the other side still sends is of no use to anybody.
func (s streamConn) Close() error {
	err := s.Stream.Close()
	_ = s.Stream.CloseRead()
	return err
}

type memberAddr string

func (memberAddr) Network() string  { return "libp2p" }
func (a memberAddr) String() string { return string(a) }

// namesShape describes the directory for the API.
func namesShape(s directory.Status) client.Directory {
	return client.Directory{
		Records: s.Live, Tombstones: s.Tombstones, Bytes: s.Bytes, Digest: hex.EncodeToString(s.Digest[:8]),
		Waiting: s.Waiting, Synced: s.Synced, OffsetMS: s.Offset.Milliseconds(), Damaged: s.Damaged,
	}
}
