package pool

import (
	"context"
	"errors"
	"iter"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/host"
	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/dht/roster"
)

// Config says who the member is and what it works with.
type Config struct {
	// Home is the folder in which the pool's file is kept. Required.
	Home string
	// Identity is the peer's own. Required.
	Identity ident.Identity
	// Host is where the pool's protocols run. Required. The pool does not close it.
	Host *host.Host
	// Finder, when set, is where members meet who lost each other's addresses.
	Finder Finder
	// Lends, when set, is asked every few seconds for what this peer lends. It must be quick.
	Lends func() roster.Lends
	// Files, when set, says how many files this peer's pool holds. It keeps Join from leaving a pool with files in it
	// unasked.
	Files func() int
	// Confirm, when set, is asked before a peer that proved its ticket is let in; an error refuses it. Empty: whoever
	// has the ticket is let in. ctx ends when the joiner gives up.
	Confirm func(ctx context.Context, r JoinRequest) error
	// Joined, when set, is told of each peer that was let in here. It must not block.
	Joined func(r JoinRequest)
	// Now is the time of day, by which certificates, tickets and absences of days are judged. It may jump. Nil is time.Now.
	Now func() time.Time
}

func (c Config) validate() error {
	switch {
	case c.Home == "":
		return errors.New("pool: no home folder was given")
	case c.Identity.Key == nil:
		return errors.New("pool: no identity was given")
	case c.Host == nil:
		return errors.New("pool: no host was given")
	case c.Host.ID() != c.Identity.ID:
		return errors.New("pool: the host has another identity")
	}
	return nil
}

// JoinRequest is a peer that proved a ticket's secret.
type JoinRequest struct {
	Peer  peer.ID
	Name  string // as it will be called
	Role  ident.Role
	Words string // the check words; the joiner sees the same
}

// Finder is what the pool needs of the DHT: hints of where peers are. Node wraps dht.DHT into it.
type Finder interface {
	// Seed announces this peer under a key from now on, in the background; Unseed ends it.
	Seed(key [32]byte)
	Unseed(key [32]byte)
	// FindProviders yields peers that are announced under the key; see dht.DHT.FindProviders.
	FindProviders(ctx context.Context, key [32]byte) iter.Seq2[peer.AddrInfo, error]
}

// Records is what the pool needs of the convergent names: a place where members leave the signed records of membership
// for those who are not there now. Values are believed for their own signatures, never for who wrote them. All methods
// must be safe for concurrent use. storage/directory fits behind it.
type Records interface {
	// Put sets a name. Setting it to what it is already may be free.
	Put(key string, value []byte) error
	// Scan yields all names that begin with prefix, and their values.
	Scan(prefix string) iter.Seq2[string, []byte]
	// Watch has f called after a name that begins with prefix changed, until stop is called. f must not block.
	Watch(prefix string, f func(key string)) (stop func())
}
