package node

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/wire"
	"github.com/shoal-os/shoal/node/api/client"
)

const (
	// fallDelay is for the answer to get out before the connection that it goes by is cut.
	fallDelay = 500 * time.Millisecond
	// claimTTL is how long a member that prepares a drill has this peer for itself.
	claimTTL = 30 * time.Second
)

// drills is this peer's part in fault drills.
type drills struct {
	mu      sync.Mutex
	claimer string // peer id of who prepares a drill …
	claimed time.Time
	fall    *fall // nil: it has not dropped out
	stops   int
	closed  bool
}

// fall is one time of dropping out.
type fall struct {
	by    string // peer id
	until time.Time
	end   context.Context
	stop  context.CancelFunc // before its time
	over  chan struct{}
}

// Drill tells of this peer's part in drills.
func (n *Node) Drill(context.Context) (client.Drill, error) {
	n.drills.mu.Lock()
	defer n.drills.mu.Unlock()
	return n.drillShape(), nil
}

// drillShape needs the lock.
func (n *Node) drillShape() client.Drill {
	d := &n.drills
	out := client.Drill{Allowed: n.cfg.Lend.AllowDrill, Stops: d.stops}
	switch {
	case d.fall != nil:
		out.Until, out.By = d.fall.until, n.memberName(d.fall.by)
	case d.taken(""):
		out.By = n.memberName(d.claimer)
	}
	return out
}

// memberName is what people call a peer, or its id when the pool cannot be asked.
func (n *Node) memberName(id string) string {
	who, err := peer.Decode(id)
	c := n.current.Load()
	if err != nil || c == nil {
		return id
	}
	if m, ok := c.pool.Member(who); ok {
		return wire.CleanText(m.Name)
	}
	return id
}

// taken reports whether somebody else prepares a drill; the lock is held.
func (d *drills) taken(by string) bool {
	return d.claimer != by && d.claimer != "" && time.Since(d.claimed) < claimTTL
}

// DrillAsk lets a member prepare a drill, unless another one does.
func (n *Node) DrillAsk(_ context.Context, by string) (client.Drill, error) {
	if _, err := n.circle(); err != nil {
		return client.Drill{}, err
	}
	if by == "" {
		by = n.ident.ID.String()
	}
	d := &n.drills
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.taken(by) {
		return client.Drill{}, client.Errorf(client.KindBusy, "try again when that one is over", "%s prepares a drill already", n.memberName(d.claimer))
	}
	d.claimer, d.claimed = by, time.Now()
	return n.drillShape(), nil
}

// DrillFall has this peer drop out a moment from now. It is the member's wish whose claim it holds, and the owner's consent.
func (n *Node) DrillFall(_ context.Context, by string, req client.DrillFall) (client.Drill, error) {
	wait := time.Duration(req.For * float64(time.Second))
	switch {
	case !n.cfg.Lend.AllowDrill:
		return client.Drill{}, client.Errorf(client.KindRefused, "it is for the owner to say: `shoal up --allow-drill`, or allow-drill = true in the home's config",
			"this peer takes no part in drills")
	case wait < client.DrillLeast || wait > client.DrillMost:
		return client.Drill{}, client.Errorf(client.KindInvalid, "", "a peer drops out for %v to %v", client.DrillLeast, client.DrillMost)
	}
	if _, err := n.circle(); err != nil {
		return client.Drill{}, err
	}
	if by == "" {
		by = n.ident.ID.String()
	}
	d := &n.drills
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.closed || d.fall != nil:
		return client.Drill{}, client.Errorf(client.KindBusy, "", "this peer drops out already, or ends")
	case d.claimer != by || !d.taken(""):
		return client.Drill{}, client.Errorf(client.KindRefused, "`shoal drill` asks all members before it has one drop out", "nobody asked this peer lately whether it may drop out")
	}
	f := &fall{by: by, until: time.Now().Add(fallDelay + wait), over: make(chan struct{})}
	f.end, f.stop = context.WithDeadline(context.Background(), f.until)
	d.fall = f
	n.cfg.Log.Warn("this peer drops out of the pool for a drill", "by", n.memberName(by), "until", f.until.Format(time.TimeOnly))
	go n.dropOut(f)
	return n.drillShape(), nil
}

// dropOut is a fall from its beginning to its end. What others see is what they would see had the process been killed: all
// connections break at once, nothing more is said, and nobody gets through. Here everything that hangs on the membership is closed
// after that, so its farewells reach nobody, and opened again from what the home holds. What it does not try is the disk: a killed
// process, or a lost machine, does not close its files in order.
func (n *Node) dropOut(f *fall) {
	defer close(f.over)
	defer f.stop()
	delay := time.NewTimer(fallDelay)
	defer delay.Stop()
	select {
	case <-delay.C:
		n.goDark()
		<-f.end.Done()
		n.comeBack()
	case <-f.end.Done():
	}
	n.drills.mu.Lock()
	defer n.drills.mu.Unlock()
	n.drills.fall, n.drills.claimer = nil, ""
}

func (n *Node) goDark() {
	n.changing.Lock()
	defer n.changing.Unlock()
	n.gate.shut.Store(true)
	for _, c := range n.host.Network().Conns() {
		_ = c.Close() // it is broken in any case
	}
	if c := n.current.Swap(nil); c != nil {
		if err := c.close(); err != nil {
			n.cfg.Log.Warn("the pool did not close well for a drill", "err", err)
		}
	}
}

// comeBack opens the gate, and the membership unless the peer ends.
func (n *Node) comeBack() {
	n.changing.Lock()
	defer n.changing.Unlock()
	n.gate.shut.Store(false)
	n.drills.mu.Lock()
	closed := n.drills.closed
	n.drills.mu.Unlock()
	if closed {
		return
	}
	c, err := n.openCircle()
	if err != nil {
		n.cfg.Log.Error("this peer cannot come back to the pool after a drill: start it again", "err", err)
		return
	}
	n.current.Store(c)
	n.cfg.Log.Warn("this peer is back from a drill")
}

// DrillStop ends a fall of this peer before its time, and tells who runs a drill from here to end it.
func (n *Node) DrillStop(context.Context) (client.Drill, error) {
	n.drills.mu.Lock()
	n.drills.stops++
	f := n.drills.fall
	n.drills.mu.Unlock()
	if f != nil {
		f.stop()
		<-f.over
	}
	return n.Drill(context.Background())
}

// endDrills ends a fall for good, when the peer closes.
func (n *Node) endDrills() error {
	n.drills.mu.Lock()
	n.drills.closed = true
	f := n.drills.fall
	n.drills.mu.Unlock()
	if f != nil {
		f.stop()
		<-f.over
	}
	return nil
}

// errFallen is the answer while this peer has dropped out.
func (n *Node) errFallen() error {
	n.drills.mu.Lock()
	defer n.drills.mu.Unlock()
	f := n.drills.fall
	if f == nil {
		return nil
	}
	return client.Wrap(client.KindUnready, errors.New("this peer is in a drill until "+f.until.Format(time.TimeOnly)), "`shoal drill --stop` on this machine ends it")
}
