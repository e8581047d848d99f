package node

import (
	"runtime"
	"time"

	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/dht/pool"
	"github.com/shoal-os/shoal/dht/roster"
	"github.com/shoal-os/shoal/node/api/client"
)

// Lend says what a peer offers its pool. Zero fields are defaults.
type Lend struct {
	// Cores is how many processor cores. 0: all of them. Negative: none.
	Cores int
	// Memory is how many bytes of memory. 0: half of the machine's. Negative: none.
	Memory int64
	// Space is how many bytes of disk the pool's files may take. 0: half of what is free on the disk of the home. Negative: none.
	Space int64
	// Owner and Site say whose the peer is and where it stands: copies of a file go to different owners, then sites. Empty is its own.
	Owner, Site string
	// Anchor marks the peer as always on.
	Anchor bool
	// When says when cores are lent: "always", "mains" (not on battery) or "idle" (while nobody uses the machine). Empty is always.
	When string
	// AllowExec lets the pool's members run native commands here, confined as far as the system can.
	AllowExec bool
	// AllowDrill lets the pool's members have this peer drop out for a while, at most client.DrillMost, in a fault drill.
	AllowDrill bool
	// Labels are what jobs can ask for, each NAME=VALUE; os and arch are there by themselves.
	Labels []string
}

// openWait bounds the wait for a pool that is just being opened: what is lent depends on the role in it.
const openWait = 200 * time.Millisecond

// offer answers the pool's question what this peer lends.
type offer struct {
	node  *Node
	ready chan struct{} // closed once pool is set
	pool  *pool.Pool
}

func newOffer(n *Node) *offer { return &offer{node: n, ready: make(chan struct{})} }

// opened tells the pool, which is nil when it could not be opened.
func (o *offer) opened(p *pool.Pool) {
	o.pool = p
	close(o.ready)
}

// lends is what this peer tells the others that it offers. A terminal offers nothing.
func (o *offer) lends() roster.Lends {
	l := roster.Lends{Version: o.node.cfg.Version[:min(len(o.node.cfg.Version), roster.LendsText)], System: runtime.GOOS + "/" + runtime.GOARCH}
	timer := time.NewTimer(openWait)
	defer timer.Stop()
	select {
	case <-o.ready:
	case <-timer.C:
		return l // asked from within the opening itself, which would wait for ever
	}
	if o.pool == nil || o.pool.Self().Role == ident.RoleTerminal {
		return l
	}
	l.Power, l.Battery = power()
	l.AlwaysOn = o.node.cfg.Lend.Anchor
	l.Cores = uint32(amount(int64(o.node.cfg.Lend.Cores), int64(runtime.NumCPU())))
	l.Memory = uint64(amount(o.node.cfg.Lend.Memory, memory()/2))
	l.Space = uint64(o.node.space)
	l.Free = min(l.Space, uint64(max(o.node.pieces.Usage().Free, 0)))
	return l
}

// amount is what a setting comes to: itself, the default for 0, nothing for less.
func amount(setting, otherwise int64) int64 {
	if setting == 0 {
		setting = otherwise
	}
	return max(setting, 0)
}

func lendsShape(l roster.Lends) client.Lends {
	return client.Lends{
		Cores: int(l.Cores), Memory: int64(l.Memory), Space: int64(l.Space), Free: int64(l.Free),
		Power: l.Power.String(), Battery: int(l.Battery), AlwaysOn: l.AlwaysOn, Version: l.Version, System: l.System,
	}
}
