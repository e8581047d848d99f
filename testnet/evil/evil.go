// Package evil is a member of a pool that wishes it ill: a program of our own that speaks shoal's protocols with a true
// member's key, and breaks them. The testnet runs it in the place of a peer; the others must neither believe it, nor fall
// over, nor keep it from their work.
//
// A *forger* tells others records that it signed in their names: that files are gone, that they are something else. A
// *flooder* opens streams of every protocol and says nothing, or rubbish, or the beginning of something huge. Both only talk to the
// addresses that they are given. What a *liar* does, sending bytes that are not what was asked for, needs no program: the
// testnet changes what an honest peer has on its disk.
package evil

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/shoal-os/shoal/dht/host"
	"github.com/shoal-os/shoal/dht/ident"
)

const (
	// victimsMax bounds whom it talks to.
	victimsMax = 64
	// pace is the time between two attacks on one victim by one of its attackers.
	pace      = 5 * time.Millisecond
	attackers = 4 // on each victim
	// streamWait bounds the opening of one stream and each answer.
	streamWait = 5 * time.Second
)

// Config says who it is and what it does.
type Config struct {
	Home    string   // of the member whose place it takes
	Kind    string   // forger or flooder
	Listen  []string // multiaddresses
	Pool    string   // the pool's id
	Victims []string // multiaddresses, each ending in /p2p/ID
	Report  io.Writer
}

// Report is what it did and how it was received.
type Report struct {
	Kind     string `json:"kind"`
	Attacks  int64  `json:"attacks"`
	Sent     int64  `json:"sent"`     // attacks that got so far as to say what they had to say
	Refused  int64  `json:"refused"`  // answered with a refusal or a reset
	Silent   int64  `json:"silent"`   // no answer in time
	NoStream int64  `json:"nostream"` // not even a stream
	Believed int64  `json:"believed"` // taken without an objection
	Last     string `json:"last"`     // what the last one met
}

// enemy is one at work.
type enemy struct {
	cfg   Config
	host  *host.Host
	ident ident.Identity
	pool  ident.PoolID
	did   struct{ attacks, sent, refused, silent, noStream, believed atomic.Int64 }
	last  atomic.Pointer[string]
}

// Run attacks until ctx ends, and then writes a Report as a line of JSON.
func Run(ctx context.Context, cfg Config) error {
	if len(cfg.Victims) == 0 || len(cfg.Victims) > victimsMax {
		return fmt.Errorf("evil: %d victims", len(cfg.Victims))
	}
	id, err := ident.LoadOrCreate(cfg.Home, "")
	if err != nil {
		return fmt.Errorf("evil: %w", err)
	}
	pool, err := ident.ParsePoolID(cfg.Pool)
	if err != nil {
		return fmt.Errorf("evil: %w", err)
	}
	h, err := host.New(host.Config{Identity: id, Listen: cfg.Listen})
	if err != nil {
		return fmt.Errorf("evil: %w", err)
	}
	defer h.Close()
	e := &enemy{cfg: cfg, host: h, ident: id, pool: pool}
	attack := map[string]func(context.Context, peer.ID, int) error{"forger": e.forge, "flooder": e.flood}[cfg.Kind]
	if attack == nil {
		return fmt.Errorf("evil: there is no kind %q", cfg.Kind)
	}
	var all sync.WaitGroup
	for _, v := range cfg.Victims {
		info, err := peer.AddrInfoFromString(v)
		if err != nil {
			return fmt.Errorf("evil: %w", err)
		}
		h.Peerstore().AddAddrs(info.ID, info.Addrs, time.Hour)
		for range attackers {
			all.Go(func() { e.keepAttacking(ctx, info.ID, attack) })
		}
	}
	all.Wait()
	last := ""
	if text := e.last.Load(); text != nil {
		last = *text
	}
	return json.NewEncoder(cfg.Report).Encode(Report{
		cfg.Kind, e.did.attacks.Load(), e.did.sent.Load(), e.did.refused.Load(), e.did.silent.Load(), e.did.noStream.Load(), e.did.believed.Load(), last,
	})
}

// keepAttacking attacks one victim, again and again.
func (e *enemy) keepAttacking(ctx context.Context, victim peer.ID, attack func(context.Context, peer.ID, int) error) {
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		e.did.attacks.Add(1)
		err := attack(ctx, victim, n)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			text := err.Error()
			e.last.Store(&text)
		}
		e.count(err)
	}
}

var (
	errNoStream = errors.New("no stream")
	errRefused  = errors.New("refused")
)

func (e *enemy) count(err error) {
	var timeout interface{ Timeout() bool }
	switch {
	case err == nil:
		e.did.believed.Add(1)
	case errors.Is(err, errNoStream):
		e.did.noStream.Add(1)
	case errors.As(err, &timeout) && timeout.Timeout():
		e.did.silent.Add(1)
	default:
		e.did.refused.Add(1)
	}
}

// open opens a stream of one protocol.
func (e *enemy) open(ctx context.Context, victim peer.ID, proto protocol.ID) (network.Stream, error) {
	ctx, cancel := context.WithTimeout(ctx, streamWait)
	defer cancel()
	s, err := e.host.NewStream(ctx, victim, proto)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoStream, err)
	}
	_ = s.SetDeadline(time.Now().Add(streamWait))
	return s, nil
}
