package netem

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// The waiting for a packet's time is done in two steps, because the Go runtime's timers are only good to a
// millisecond when nothing else goes on: coarse by a timer until coarseMargin before, then in naps.
const (
	coarseMargin = 2 * time.Millisecond
	nap          = 100 * time.Microsecond
)

// burst is how many packets one line delivers before it is the next line's turn.
const burst = 32

// Net is a running network. Its methods are safe for concurrent use.
type Net struct {
	config   Config
	hosts    []*Host
	byAddr   map[[4]byte]int
	gateways []*gateway // of the sites
	lines    [][]*line  // [from][to]; nil on the diagonal
	pool     sync.Pool  // *[]byte of the MTU
	stop     context.CancelFunc
	done     sync.WaitGroup
	once     sync.Once
	starts   chan func()   // run on the launcher's thread
	ended    chan struct{} // closed by Close
}

// Host is one host of a Net.
type Host struct {
	net   *Net
	addr  netip.Addr
	site  int // index of its site; -1: outside
	space *namespace
	wake  chan struct{} // a packet for this host was put on an empty line
}

// Supported tells whether a network can be made here; if not, the error says why and wraps ErrUnsupported.
func Supported() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: it needs root, or a user namespace of its own", ErrUnsupported)
	}
	s, err := newNamespace(subnetDefault, netip.Prefix{}, subnetDefault.Addr().Next(), mtuDefault, "")
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	s.close()
	return nil
}

// New makes the hosts and joins them. The caller must Close the network.
func New(c Config) (*Net, error) {
	c, err := c.complete()
	if err != nil {
		return nil, err
	}
	if err := Supported(); err != nil {
		return nil, err
	}
	n := &Net{config: c, starts: make(chan func()), ended: make(chan struct{})}
	n.pool.New = func() any { b := make([]byte, c.MTU); return &b }
	addrs, sites, gateways := c.plan()
	n.byAddr = map[[4]byte]int{}
	for i, addr := range gateways {
		g := newGateway(c.Sites[i].NAT, addr.As4(), c.Seed)
		n.gateways = append(n.gateways, g)
	}
	for from := range c.Hosts {
		addr := addrs[from]
		n.byAddr[addr.As4()] = from
		own, more := c.subnetOf(sites[from])
		space, err := newNamespace(own, more, addr, c.MTU, c.TCP)
		if err != nil {
			n.closeHosts()
			return nil, fmt.Errorf("netem: host %d: %w", from, err)
		}
		n.hosts = append(n.hosts, &Host{n, addr, sites[from], space, make(chan struct{}, 1)})
		row := make([]*line, c.Hosts)
		for to := range row {
			if to != from {
				row[to] = newLine(c.Link, c.Seed, uint64(from)<<32|uint64(to))
			}
		}
		n.lines = append(n.lines, row)
	}
	ctx, stop := context.WithCancel(context.Background())
	n.stop = stop
	go onOwnThread(func() error { n.launch(); return nil })
	for i := range n.hosts {
		n.done.Go(func() { n.read(i) })
		n.done.Go(func() { n.deliver(ctx, i) })
	}
	return n, nil
}

// Close ends the network and kills what Start started. Processes of Command keep running, without a network: stopping them is up to whoever started them.
func (n *Net) Close() error {
	n.once.Do(func() {
		n.stop()
		close(n.ended)
		n.closeHosts()
		n.done.Wait()
	})
	return nil
}

func (n *Net) closeHosts() {
	for _, h := range n.hosts {
		h.space.close()
	}
}

// Host returns a host by its number, from 0.
func (n *Net) Host(i int) *Host { return n.hosts[i] }

// Set changes the lines between two hosts, in both directions, from the next packet on.
func (n *Net) Set(a, b int, l Link) error {
	return errors.Join(n.SetOneWay(a, b, l), n.SetOneWay(b, a, l))
}

// SetOneWay changes the line from one host to another.
func (n *Net) SetOneWay(from, to int, l Link) error {
	l, err := l.complete()
	if err != nil {
		return err
	}
	n.lines[from][to].set(l)
	return nil
}

// SetAll changes every line.
func (n *Net) SetAll(l Link) error {
	l, err := l.complete()
	if err != nil {
		return err
	}
	n.each(func(_, _ int, line *line) { line.set(l) })
	return nil
}

// Partition cuts every line between hosts of different groups and mends every other one. A host in no group is alone.
func (n *Net) Partition(groups ...[]int) {
	group := make([]int, len(n.hosts))
	for i := range group {
		group[i] = -1 - i
	}
	for g, members := range groups {
		for _, i := range members {
			group[i] = g
		}
	}
	n.each(func(from, to int, l *line) { l.setDown(group[from] != group[to]) })
}

// Heal mends every line.
func (n *Net) Heal() { n.each(func(_, _ int, l *line) { l.setDown(false) }) }

// Stats returns what passed from one host to another.
func (n *Net) Stats(from, to int) Stats { return n.lines[from][to].counts() }

func (n *Net) each(do func(from, to int, l *line)) {
	for from, row := range n.lines {
		for to, l := range row {
			if l != nil {
				do(from, to, l)
			}
		}
	}
}

// Addr is the host's address.
func (h *Host) Addr() netip.Addr { return h.addr }

// Start starts a command inside the host, and lets it be killed when this process ends, however that comes. On error it was not started.
func (h *Host) Start(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	result := make(chan error, 1)
	select {
	case h.net.starts <- func() {
		if err := h.space.enter(); err != nil {
			result <- err
			return
		}
		result <- cmd.Start()
	}:
		return <-result
	case <-h.net.ended:
		return errors.New("netem: start: the network is closed")
	}
}

// launch owns the thread that starts processes. It lasts as long as the network: a process whose death is tied to its
// parent's is tied to the very thread that started it.
func (n *Net) launch() {
	for {
		select {
		case start := <-n.starts:
			start()
		case <-n.ended:
			return
		}
	}
}

// Command is exec.Command for a process inside the host, by way of the program nsenter. Its process id is that of the named program itself.
func (h *Host) Command(name string, args ...string) *exec.Cmd {
	// The namespace is named by this process's descriptor of it, so that nothing has to be mounted or cleaned up.
	return exec.Command("nsenter", append([]string{"--net=" + h.space.path(), "--", name}, args...)...)
}

// Do calls f on a thread inside the host and returns its error. Sockets that f opens belong to the host for good; f must open them
// itself, not in goroutines that it starts.
func (h *Host) Do(f func() error) error { return h.space.do(f) }

// read takes the packets that a host sends and puts each on its line.
func (n *Net) read(from int) {
	dev := n.hosts[from].space.device
	for {
		buf := n.pool.Get().(*[]byte)
		size, err := dev.Read((*buf)[:n.config.MTU])
		if err != nil {
			return // closed
		}
		packet, now := (*buf)[:size], time.Now()
		to, ok := n.route(from, packet, now)
		if !ok || to == from || !n.lines[from][to].push(now, packet) {
			n.pool.Put(buf)
			continue
		}
		select {
		case n.hosts[to].wake <- struct{}{}:
		default:
		}
	}
}

// route finds the host that a packet of another one is for, and does to it what the NATs on its way do.
func (n *Net) route(from int, p []byte, now time.Time) (to int, ok bool) {
	if len(p) < 20 || p[0]>>4 != 4 {
		return 0, false
	}
	site := n.hosts[from].site
	to, ok = n.byAddr[[4]byte(p[16:20])]
	if ok && n.hosts[to].site == site {
		return to, true
	}
	if ok && n.hosts[to].site >= 0 {
		return 0, false // a private address of another site
	}
	if site >= 0 && !n.gateways[site].leave(p, now) {
		return 0, false
	}
	if ok {
		return to, true
	}
	for i, g := range n.gateways {
		if g.addr == [4]byte(p[16:20]) && i != site && g.enter(p, now) {
			to, ok = n.byAddr[[4]byte(p[16:20])]
			return to, ok
		}
	}
	return 0, false
}

// deliver writes the packets that are due to one host's device.
func (n *Net) deliver(ctx context.Context, to int) {
	h := n.hosts[to]
	var lines []*line
	for from := range n.hosts {
		if from != to {
			lines = append(lines, n.lines[from][to])
		}
	}
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		next, busy := time.Time{}, false
		for _, l := range lines {
			due, more := n.drain(h, l)
			busy = busy || more
			if !due.IsZero() && (next.IsZero() || due.Before(next)) {
				next = due
			}
		}
		if busy {
			if ctx.Err() != nil {
				return
			}
			continue
		}
		wait := time.Hour
		if !next.IsZero() {
			wait = time.Until(next)
		}
		if wait <= coarseMargin {
			sleepExactly(min(max(wait, 0), nap))
			if ctx.Err() != nil {
				return
			}
			continue
		}
		timer.Reset(wait - coarseMargin)
		select {
		case <-ctx.Done():
			return
		case <-h.wake:
		case <-timer.C:
		}
	}
}

// drain delivers at most a burst from a line, and says whether it may have more now or when it will.
func (n *Net) drain(h *Host, l *line) (due time.Time, more bool) {
	now := time.Now()
	for range burst {
		data, due := l.pop(now)
		if data == nil {
			return due, false
		}
		// A host whose device is full or down loses the packet, as a real one does.
		_, _ = h.space.device.Write(data)
		data = data[:cap(data)]
		n.pool.Put(&data)
	}
	return time.Time{}, true
}
