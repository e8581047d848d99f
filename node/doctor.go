package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/shoal-os/shoal/dht"
	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/dht/roster"
	"github.com/shoal-os/shoal/node/api/client"
	"github.com/shoal-os/shoal/storage"
	"github.com/shoal-os/shoal/storage/block"
	"github.com/shoal-os/shoal/storage/chunk"
)

const (
	// spaceLow is where a nearly full disk is worth a word: one large get fills it.
	spaceLow = 1 << 30
	// problemsShown bounds the shares that doctor names.
	problemsShown = 5
)

func ok(name, format string, args ...any) client.Check {
	return client.Check{Name: name, State: client.CheckOK, Text: fmt.Sprintf(format, args...)}
}

func warn(name, hint, format string, args ...any) client.Check {
	return client.Check{Name: name, State: client.CheckWarn, Text: fmt.Sprintf(format, args...), Hint: hint}
}

func bad(name string, err error) client.Check {
	c := client.Check{Name: name, State: client.CheckFail, Text: err.Error()}
	var e *client.Error
	if errors.As(err, &e) {
		c.Hint = e.Hint
	}
	return c
}

// ExamineHome checks what can be checked of a home without its peer: that it
// is usable, that its identity is whole, that there is space. It changes
// nothing there.
func ExamineHome(home string) []client.Check {
	info, err := os.Stat(home)
	if errors.Is(err, fs.ErrNotExist) {
		return []client.Check{warn("home", "the first `shoal up` or `shoal share` makes it", "%s is not there yet", home)}
	}
	if err != nil {
		return []client.Check{bad("home", homeError(home, err))}
	}
	if !info.IsDir() {
		return []client.Check{{Name: "home", State: client.CheckFail, Text: home + " is not a folder",
			Hint: "choose another folder with --home or SHOAL_HOME"}}
	}
	return []client.Check{examineAccess(home), examineIdentity(home), examineSpace(home)}
}

func examineAccess(home string) client.Check {
	if _, err := os.ReadDir(home); err != nil {
		return bad("home", homeError(home, err))
	}
	f, err := os.CreateTemp(home, ".doctor-*")
	if err != nil {
		return bad("home", homeError(home, err))
	}
	if err := errors.Join(f.Close(), os.Remove(f.Name())); err != nil {
		return bad("home", homeError(home, err))
	}
	return ok("home", "%s can be read and written", home)
}

func examineIdentity(home string) client.Check {
	if _, err := os.Lstat(filepath.Join(home, "identity.key")); errors.Is(err, fs.ErrNotExist) {
		return warn("identity", "the first `shoal up` or `shoal share` makes it", "there is none yet")
	}
	id, err := ident.LoadOrCreate(home, "")
	if err != nil {
		return bad("identity", identityError(err))
	}
	return ok("identity", "%s, %s", id.Name, id.ID)
}

func examineSpace(home string) client.Check {
	free, err := block.FreeSpace(home)
	if err != nil {
		return bad("space", err)
	}
	text := fmt.Sprintf("%.1f GiB free on the disk of the home", float64(free)/(1<<30))
	if free < spaceLow {
		return warn("space", "a get that does not fit fails; free some space", "%s", text)
	}
	return ok("space", "%s", text)
}

// Doctor runs the peer's checks of itself, each building upon those before it.
func (n *Node) Doctor(context.Context) (client.Doctor, error) {
	checks := ExamineHome(n.cfg.Home)
	checks = append(checks, ok("api", "answers at %s", n.Endpoint()))
	checks = append(checks, n.examineListen(), n.examineLAN(), n.examinePeers(), n.examineTable(), n.examineRecords(), n.examinePool())
	checks = append(checks, n.examineWork()...)
	return client.Doctor{Checks: append(checks, n.examineShares()...)}, nil
}

func (n *Node) examineListen() client.Check {
	addrs := n.host.ShareAddrs()
	switch {
	case len(addrs) == 0:
		return client.Check{Name: "listen", State: client.CheckFail, Text: "no address to be reached at",
			Hint: "is the network down? see --listen"}
	case n.host.Confined():
		return warn("listen", "start without --listen to be reachable from others",
			"loopback only, so only this machine reaches this peer: %s", addrs[0])
	}
	return ok("listen", "%d addresses, best %s", len(addrs), linkAddrs(addrs)[0])
}

func (n *Node) examineLAN() client.Check {
	switch {
	case n.host.LAN():
		return ok("lan", "announced on the local network")
	case n.host.LANError() != nil:
		return warn("lan", "guest networks and containers often have no multicast; use links with addresses or --bootstrap",
			"local discovery does not run: %v", n.host.LANError())
	case n.host.Confined() && n.cfg.LAN:
		return ok("lan", "off: the peer listens on loopback only")
	}
	return ok("lan", "off by choice")
}

func (n *Node) examinePeers() client.Check {
	peers := n.peers()
	if len(peers) == 0 {
		return warn("peers", "fetch somebody's link with addresses, start another peer on the local network, or give --bootstrap",
			"connected to nobody")
	}
	relayed := 0
	for _, p := range peers {
		if len(p.Paths) > 0 && p.Paths[0].Limited {
			relayed++
		}
	}
	if relayed > 0 {
		return warn("peers", "a relay carries little: one of both sides needs an open port (see --upnp)",
			"connected to %d, %d of them through a relay", len(peers), relayed)
	}
	return ok("peers", "connected to %d", len(peers))
}

func (n *Node) examineTable() client.Check {
	if n.dht.Table() == 0 {
		return warn("dht", "a bare CID cannot be found, and others cannot find this peer's shares, until one other peer is known",
			"the routing table is empty")
	}
	return ok("dht", "%d peers in the routing table", n.dht.Table())
}

// examinePool says how the peer stands in its pool.
func (n *Node) examinePool() client.Check {
	c, err := n.circle()
	if err != nil {
		return bad("pool", err)
	}
	p := n.poolShape(c)
	switch {
	case p.Standing != "ok":
		return warn("pool", "`shoal leave` begins a pool of one's own; an admin's `shoal invite` leads back", "this peer is no member in force: %s", p.Standing)
	case p.Problem != "":
		return warn("pool", "is the disk full? the membership is kept in memory meanwhile", "the membership cannot be stored: %s", p.Problem)
	case len(p.Names.Damaged) > 0:
		return warn("pool", "what was lost is fetched again from other members", "%d files of names could not be read whole", len(p.Names.Damaged))
	case p.All.Members == 1:
		return ok("pool", "a pool of one; `shoal invite` lets others in")
	case p.Totals.Members == 1 && !p.Waking:
		return warn("pool", "are they running, and is there a network between them and this peer?", "none of the other %d members is online", p.All.Members-1)
	}
	return ok("pool", "member of a pool of %d, %d online", p.All.Members, p.Totals.Members)
}

// examineWork says what this peer does for tasks, and what its system cannot hold guests to.
func (n *Node) examineWork() []client.Check {
	c, err := n.circle()
	if err != nil {
		return nil // the pool's check said it
	}
	w := n.workerShape(c)
	var out []client.Check
	switch {
	case w.Cores == 0:
		out = append(out, warn("tasks", "", "no cores are lent now: %s", w.Why))
	case w.AllowExec:
		out = append(out, ok("tasks", "%d cores lent (%s), for modules and native commands", w.Cores, w.When))
	default:
		out = append(out, ok("tasks", "%d cores lent (%s), for modules; native commands are not allowed", w.Cores, w.When))
	}
	if err := n.lid.problem(); err != nil {
		out = append(out, ok("sleep", "the others find out by silence, after %v (%v)", roster.AwayAfter, err))
	} else {
		out = append(out, ok("sleep", "the others are told before this machine sleeps"))
	}
	for _, lacks := range c.exec.Guards() {
		out = append(out, warn("runner", "run commands of people you trust only, or start without --allow-exec", "%s", lacks))
	}
	if aside := n.quorumAside(c); len(aside) > 0 {
		out = append(out, warn("quorum", "the jobs of which it was a steward go on with the others; remove "+aside[0]+" when nobody needs to look at it",
			"what this peer agreed to was damaged and put aside %d times", len(aside)))
	}
	return out
}

// examineRecords says whether the shares can be found without their links' addresses.
func (n *Node) examineRecords() client.Check {
	shares := n.storage.Shares()
	told := 0
	for _, s := range shares {
		if time.Since(n.announced(s.Root)) < dht.RecordLife {
			told++
		}
	}
	if len(shares) == 0 {
		return ok("records", "nothing is shared")
	}
	if told < len(shares) {
		return warn("records", "it happens by itself once another peer is in the table",
			"%d of %d announced to the DHT", told, len(shares))
	}
	return ok("records", "%d of %d announced to the DHT", told, told)
}

// examineShares names the shares that cannot be served whole.
func (n *Node) examineShares() []client.Check {
	var troubled []client.Check
	for name, err := range n.storage.Damaged() {
		troubled = append(troubled, warn("store", "share or get it again; then remove the folder "+filepath.Join(n.cfg.Home, storeDir, name),
			"a record cannot be read: %v", err))
	}
	shares := n.storage.Shares()
	for _, s := range shares {
		if s.State != storage.Changed && s.State != storage.Missing {
			continue
		}
		if len(troubled) >= problemsShown {
			break
		}
		troubled = append(troubled, warn("share", "share the path again for a new link, or `shoal unshare "+s.Root.String()+"`",
			"%s (%s): %s", s.Name, s.State, s.Problem))
	}
	if len(troubled) > 0 {
		return troubled
	}
	return []client.Check{ok("shares", "%d, none changed or missing", len(shares))}
}

// announced is when the DHT was last told of a root.
func (n *Node) announced(root chunk.CID) time.Time { return n.dht.Provided(dht.Key(root.Sum)) }
