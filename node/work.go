package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/gossip"
	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/dht/pool"
	"github.com/shoal-os/shoal/dht/roster"
	"github.com/shoal-os/shoal/node/api/client"
	"github.com/shoal-os/shoal/storage/block/piece"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/quorum"
	"github.com/shoal-os/shoal/storage/quorum/wal"
	"github.com/shoal-os/shoal/storage/repair"
	"github.com/shoal-os/shoal/tasks"
	"github.com/shoal-os/shoal/tasks/exec"
	"github.com/shoal-os/shoal/tasks/market"
)

const (
	quorumDir = "quorum" // a folder for each pool: what this peer promised as a member of groups
	tasksDir  = "tasks"  // what is only for now; emptied at each start
	execDir   = "exec"   // compiled modules
	jobsTopic = "jobs"

	// labelsMax bounds what the owner calls the machine, and labelMax each label, in bytes.
	labelsMax = 32
	labelMax  = 128
)

// openWork adds the pool's work to a circle that has its files.
func (n *Node) openWork(c *circle, opened *closers) (err error) {
	if c.quorum, err = n.openQuorum(c); err != nil {
		return err
	}
	opened.add("quorum", c.quorum.Close)

	if c.exec, err = exec.Open(exec.Config{
		Dir: filepath.Join(n.cfg.Home, execDir), Command: n.cfg.Runner, Cores: n.lendCores(), AllowExec: n.cfg.Lend.AllowExec, Log: n.cfg.Log,
	}); err != nil {
		return homeError(n.cfg.Home, err)
	}
	opened.add("runners", c.exec.Close)

	ads, err := c.pool.JoinTopic(jobsTopic, tasks.CheckAd)
	if err != nil {
		return fmt.Errorf("jobs: %w", err)
	}
	opened.add("jobs", ads.Close)

	c.tasks, err = tasks.Open(tasks.Config{
		Dir: filepath.Join(n.cfg.Home, tasksDir), Self: n.ident, Pool: c.pool.ID(),
		Members: c.pool, Streams: c.pool, Ads: newsroom{ads}, Records: c.names, Bytes: jobBytes{c.repair, n.pieces}, Keeper: c.keeper, Quorum: c.quorum,
		Runner: tasks.Over(c.exec),
		Lends:  func() market.Lends { return n.lendsNow(c) },
		Uptime: func(id peer.ID) uint8 { m, _ := c.repair.OfferOf(id); return m.Uptime },
		Owner:  func(id peer.ID) string { m, _ := c.repair.OfferOf(id); return m.Owner },
		Now:    c.names.Now,
		Log:    n.cfg.Log,
	})
	if err != nil {
		return openError(err)
	}
	opened.add("tasks", c.tasks.Close)
	return nil
}

// openQuorum opens this peer's part in groups. What is damaged is put aside: a peer that forgot a promise must not be asked for
// it, and its groups go on without it.
func (n *Node) openQuorum(c *circle) (*quorum.Engine, error) {
	dir := filepath.Join(n.cfg.Home, quorumDir, c.pool.ID().String())
	cfg := quorum.Config{
		Dir: dir, Self: n.ident.ID, Streams: c.pool, Presence: attendance{c.pool}, Accept: tasks.Accept(n.ident.ID, c.pool),
		Clock: pool.BootTime, Log: n.cfg.Log,
	}
	for {
		if err := os.MkdirAll(dir, homeMode); err != nil {
			return nil, homeError(n.cfg.Home, err)
		}
		e, err := quorum.Open(cfg)
		if !errors.Is(err, wal.ErrDamaged) {
			return e, openError(err)
		}
		aside := dir + damagedMark + n.cfg.Now().UTC().Format("20060102T150405.000")
		n.cfg.Log.Warn("what this peer agreed to as a steward of jobs is damaged and was put aside; those jobs go on without it", "err", err, "aside", aside)
		if err := os.Rename(dir, aside); err != nil {
			return nil, homeError(n.cfg.Home, err)
		}
	}
}

// damagedMark begins what the folder of damaged promises is called besides its name.
const damagedMark = ".damaged-"

// quorumAside lists what was put aside.
func (n *Node) quorumAside(c *circle) []string {
	found, _ := filepath.Glob(filepath.Join(n.cfg.Home, quorumDir, c.pool.ID().String()+damagedMark+"*")) // a home that is a bad pattern has none to show
	return found
}

// lendCores is how many cores this peer lends when it may.
func (n *Node) lendCores() int { return int(amount(int64(n.cfg.Lend.Cores), int64(runtime.NumCPU()))) }

// lendsNow is what this peer lends to tasks at this moment.
func (n *Node) lendsNow(c *circle) market.Lends {
	l := market.Lends{
		Cores: n.lendCores(), Memory: amount(n.cfg.Lend.Memory, memory()/2), Mains: true, Wasm: true, Proc: n.cfg.Lend.AllowExec, Labels: n.labels(),
		Battery: 100,
	}
	supply, charge := power()
	if supply == roster.PowerBattery {
		l.Mains, l.Battery = false, int(charge)
	}
	switch {
	case !lendsAnything(c.pool.Self().Role):
		l.Cores, l.Why = 0, "its role is terminal, and a terminal lends nothing"
	case l.Cores == 0:
		l.Why = "its owner lends no cores (up --lend-cores)"
	default:
		l.Cores, l.Why = market.Allow(n.cfg.when, l.Cores, l.Mains, l.Battery, n.idle.idle())
	}
	return l
}

// labels are what a job can ask for: what the machine is, and what its owner calls it.
func (n *Node) labels() []string {
	return append([]string{"os=" + runtime.GOOS, "arch=" + runtime.GOARCH}, n.cfg.Lend.Labels...)
}

// checkLabels holds what the owner calls the machine to NAME=VALUE, as needs are compared with it letter by letter.
func checkLabels(labels []string) error {
	if len(labels) > labelsMax {
		return client.Errorf(client.KindInvalid, "", "labels: %d are too many, %d are the most", len(labels), labelsMax)
	}
	for _, l := range labels {
		name, value, ok := strings.Cut(l, "=")
		switch {
		case !ok || name == "" || value == "" || len(l) > labelMax || ident.CleanName(l) != l:
			return client.Errorf(client.KindInvalid, "write it like gpu=nvidia", "labels: %q is not NAME=VALUE", l)
		case name == "os" || name == "arch":
			return client.Errorf(client.KindInvalid, "", "labels: %s is what the machine is, and set by itself", name)
		}
	}
	return nil
}

// Policies of lending, as settings have them.
var policies = map[string]market.When{"": market.WhenAlways, "always": market.WhenAlways, "mains": market.WhenMains, "idle": market.WhenIdle}

func parseWhen(text string) (market.When, error) {
	w, ok := policies[text]
	if !ok {
		return w, client.Errorf(client.KindInvalid, "use always, mains or idle", "when: there is no policy %q", text)
	}
	if w == market.WhenIdle && !canTellIdle {
		return w, client.Errorf(client.KindInvalid, "use --when mains or always; `shoal mine` takes the machine back by hand",
			"when: on %s this program cannot tell whether somebody uses the machine", runtime.GOOS)
	}
	return w, nil
}

// Worker tells what this peer does for the pool's tasks.
func (n *Node) Worker(context.Context) (client.Worker, error) {
	c, err := n.circle()
	if err != nil {
		return client.Worker{}, err
	}
	return n.workerShape(c), nil
}

func (n *Node) workerShape(c *circle) client.Worker {
	s := c.tasks.Status()
	w := client.Worker{
		Cores: s.Lends.Cores, CoresMost: n.lendCores(), Memory: s.Lends.Memory, When: n.cfg.Lend.When, Why: s.Lends.Why, Mine: s.Mine,
		AllowExec: s.Lends.Proc, Labels: slices.Clone(s.Lends.Labels), Tasks: []client.JobLease{}, Stewards: s.Seats, Leads: s.Leads,
	}
	switch {
	case s.Mine:
		w.Cores, w.Why = 0, "its owner took it back (`shoal mine --off` lends it again)"
	case s.Asleep:
		w.Cores, w.Why = 0, "it is about to sleep"
	}
	if w.When == "" {
		w.When = "always"
	}
	for i := range s.Held {
		l := c.leaseShape(&s.Held[i].Lease)
		l.Job = s.Held[i].Job.String()
		if s.Held[i].Phase == market.Running {
			w.Running++
		}
		w.Tasks = append(w.Tasks, l)
	}
	return w
}

// Mine takes the machine back from the pool's tasks, or lends it again.
func (n *Node) Mine(_ context.Context, on bool) (client.Worker, error) {
	c, err := n.circle()
	if err != nil {
		return client.Worker{}, err
	}
	c.tasks.Mine(on)
	return n.workerShape(c), nil
}

// attendance is the pool as groups want it: who can be reached.
type attendance struct{ pool *pool.Pool }

func (a attendance) Present(id peer.ID) bool {
	m, ok := a.pool.Member(id)
	return ok && (m.Self || m.State == roster.Online)
}

func (a attendance) OnPresence(f func(peer.ID, bool)) (stop func()) {
	return a.pool.Watch(func(c roster.Change) {
		if was, is := c.Was.State == roster.Online, c.Now.State == roster.Online; was != is || c.Was.ID == "" {
			f(c.Now.ID, is)
		}
	})
}

// jobBytes is what the pool does with files, as tasks want it.
type jobBytes struct {
	*repair.Repair
	pieces *piece.Store
}

func (b jobBytes) Get(id chunk.CID) (piece.Piece, bool) { return b.pieces.Get(id) }

var _ tasks.Ads = newsroom{(*gossip.Topic[[]byte])(nil)}
