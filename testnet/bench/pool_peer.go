package main

import (
	"context"
	"errors"
	"iter"
	"os"
	"path/filepath"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/shoal-os/shoal/dht/gossip"
	"github.com/shoal-os/shoal/dht/host"
	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/dht/pool"
	"github.com/shoal-os/shoal/dht/roster"
	"github.com/shoal-os/shoal/storage/directory"
)

// poolPeer is one member.
type poolPeer struct {
	home  string
	self  ident.Identity
	host  *host.Host
	count *counter
	pool  *pool.Pool
	topic *gossip.Topic[[]byte]
	names *directory.Directory
}

func openPoolPeer(home, name string) (*poolPeer, error) {
	self, err := ident.LoadOrCreate(home, name)
	if err != nil {
		return nil, err
	}
	h, err := host.New(host.Config{Identity: self, Listen: []string{"/ip4/127.0.0.1/tcp/0"}, PortFile: filepath.Join(home, "port")})
	if err != nil {
		return nil, err
	}
	p := &poolPeer{home: home, self: self, host: h, count: &counter{Host: h.Host, bytes: map[protocol.ID]*traffic{}}}
	h.Host = p.count // what opens and takes streams from here on is counted
	return p, p.open()
}

// open takes up the membership that the home holds.
func (p *poolPeer) open() (err error) {
	lends := func() roster.Lends { return roster.Lends{Cores: 1, Version: "bench"} }
	if p.pool, err = pool.Open(pool.Config{Home: p.home, Identity: p.self, Host: p.host, Lends: lends}); err != nil {
		return err
	}
	if p.topic, err = p.pool.JoinTopic("news", func(_ peer.ID, data []byte) error { return directory.CheckNews(data) }); err != nil {
		return err
	}
	dir := filepath.Join(p.home, p.pool.ID().String())
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	p.names, err = directory.Open(directory.Config{
		Dir: dir, Self: p.self, Pool: p.pool.ID(), Members: p.pool, Streams: p.pool, Presence: p, News: p,
	})
	if err != nil {
		return err
	}
	p.pool.UseRecords(poolRecords{p.names})
	return nil
}

// shut ends the membership's work; the host stays.
func (p *poolPeer) shut() error {
	var err error
	if p.names != nil {
		err = p.names.Close()
	}
	if p.topic != nil {
		err = errors.Join(err, p.topic.Close())
	}
	if p.pool != nil {
		err = errors.Join(err, p.pool.Close())
	}
	return err
}

func (p *poolPeer) close() error { return errors.Join(p.shut(), p.host.Close()) }

// Connected implements [directory.Presence].
func (p *poolPeer) Connected() (out []peer.ID) {
	for _, m := range p.pool.Members() {
		if !m.Self && m.State == roster.Online {
			out = append(out, m.ID)
		}
	}
	return out
}

// OnConnected implements [directory.Presence].
func (p *poolPeer) OnConnected(f func(peer.ID)) (stop func()) { return p.pool.OnConnected(f) }

// Publish implements [directory.News].
func (p *poolPeer) Publish(ctx context.Context, data []byte) error { return p.topic.Publish(ctx, data) }

// Next implements [directory.News].
func (p *poolPeer) Next(ctx context.Context) (peer.ID, []byte, error) {
	m, err := p.topic.Next(ctx)
	return m.From, m.Value, err
}

// poolRecords is a directory as a pool wants it.
type poolRecords struct{ names *directory.Directory }

func (r poolRecords) Put(key string, value []byte) error {
	if old, ok := r.names.Get(key); ok && string(old.Value) == string(value) {
		return nil
	}
	return r.names.Put(key, value)
}

func (r poolRecords) Scan(prefix string) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		for rec := range r.names.Scan(prefix) {
			if !yield(rec.Key, rec.Value) {
				return
			}
		}
	}
}

func (r poolRecords) Watch(prefix string, f func(string)) (stop func()) {
	return r.names.Watch(prefix, func(rec *directory.Record) { f(rec.Key) })
}
