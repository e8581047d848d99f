package exec

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/shoal-os/shoal/dht/wire"
	"github.com/shoal-os/shoal/tasks/exec/pb"
	"github.com/shoal-os/shoal/tasks/exec/proc"
	"github.com/shoal-os/shoal/tasks/exec/wasm"
	"github.com/shoal-os/shoal/tasks/job"
)

// Exit codes of a child.
const (
	exitOrphan  = 3 // its peer is gone
	exitBadLine = 4 // its peer said what it may not
)

// Child runs this process as a runner's child, and does not return, if it was started as one. It must be the first thing
// that main and TestMain do: nothing may have been started, opened or written by then.
func Child() {
	if len(os.Args) < 4 || os.Args[1] != childArg {
		return
	}
	c := &child{in: os.Stdin, out: newOutbox(os.Stdout), dir: os.Args[3], work: make(chan *pb.Order, 1)}
	os.Stdout = os.Stderr // whatever else wants to say something
	switch os.Args[2] {
	case job.Wasm.String():
		beNice(job.Wasm)
		c.guest = newModules(c.dir, c.out)
	case job.Proc.String():
		beNice(job.Proc)
		c.guest = newCommands(c.out, slices.Contains(os.Args[4:], groupArg))
	default:
		fmt.Fprintln(os.Stderr, "a runner of no kind:", os.Args[2])
		os.Exit(exitBadLine)
	}
	c.main()
}

// guest runs one kind of program in the child. run and prepare are called by one goroutine, the others by another, at any
// time.
type guest interface {
	lacks() []string
	run(*pb.Task) *pb.Exit
	prepare(*pb.Prepare) error
	until(id uint64, t time.Duration) // also before each task
	signal(id uint64, kind pb.Signal_Kind)
	orphaned() // the peer is gone: nothing that runs may stay
}

// child is the child's side.
type child struct {
	in    io.Reader
	out   *outbox
	dir   string
	guest guest
	work  chan *pb.Order
	cpu   time.Duration // of the process when the last order was done
}

func (c *child) main() {
	c.cpu = cpuTime()
	go c.listen()
	c.out.report(&pb.Report{Report: &pb.Report_Ready{Ready: &pb.Ready{Lacks: c.guest.lacks()}}})
	for o := range c.work {
		switch o := o.Order.(type) {
		case *pb.Order_Task:
			exit := c.guest.run(o.Task)
			exit.Id = o.Task.Id
			c.account(exit)
			if len(exit.Reason) > reasonMax {
				exit.Reason = exit.Reason[:reasonMax]
			}
			c.out.report(&pb.Report{Report: &pb.Report_Exit{Exit: exit}})
		case *pb.Order_Prepare:
			answer := &pb.Prepared{}
			if err := c.guest.prepare(o.Prepare); err != nil {
				answer.Error = err.Error()[:min(len(err.Error()), reasonMax)]
			}
			c.cpu = cpuTime()
			c.out.report(&pb.Report{Report: &pb.Report_Prepared{Prepared: answer}})
		}
	}
}

// account fills in the processor time: of a guest in this very process what it took since the last one ended.
func (c *child) account(exit *pb.Exit) {
	total := cpuTime()
	if exit.CpuNs == 0 {
		exit.CpuNs = int64(total - c.cpu)
	}
	c.cpu = total
	exit.TotalCpuNs = int64(total)
}

// listen takes orders, also while a guest runs, and ends the process when the peer is gone.
func (c *child) listen() {
	in := bufio.NewReader(c.in)
	for {
		o := &pb.Order{}
		if err := wire.ReadMsg(in, o, orderMax); err != nil {
			c.guest.orphaned()
			os.Exit(exitOrphan)
		}
		switch m := o.Order.(type) {
		case *pb.Order_Until:
			c.guest.until(m.Until.GetId(), time.Duration(m.Until.GetUntilNs()))
		case *pb.Order_Signal:
			c.guest.signal(m.Signal.GetId(), m.Signal.GetKind())
		case *pb.Order_Task:
			c.guest.until(m.Task.GetId(), time.Duration(m.Task.GetUntilNs()))
			c.work <- o
		case *pb.Order_Prepare:
			c.work <- o
		default:
			c.guest.orphaned()
			os.Exit(exitBadLine)
		}
	}
}

// modules is the guest of wasm.
type modules struct {
	engine *wasm.Engine
	out    *outbox

	mu    sync.Mutex
	done  uint64 // the last task that ended
	clock deadline
}

func newModules(dir string, out *outbox) *modules {
	m := &modules{out: out}
	m.engine = wasm.New(dir, out.output)
	return m
}

func (m *modules) lacks() []string { return nil }

func (m *modules) prepare(p *pb.Prepare) error { return m.engine.Prepare(p.Module, p.ModuleId) }

func (m *modules) run(t *pb.Task) *pb.Exit {
	exit := m.engine.Run(t)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.done = t.Id
	m.clock.set(0)
	return exit
}

func (m *modules) until(id uint64, t time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if id > m.done {
		m.clock.set(t)
	}
}

// signal has nothing to do: the peer stops and kills the whole process.
func (m *modules) signal(uint64, pb.Signal_Kind) {}

func (m *modules) orphaned() {}

// commands is the guest of proc.
type commands struct {
	box *proc.Box
}

func newCommands(out *outbox, grouped bool) *commands {
	return &commands{proc.New(out.output, grouped)}
}

func (c *commands) lacks() []string { return c.box.Lacks() }

func (c *commands) prepare(*pb.Prepare) error { return nil }

func (c *commands) run(t *pb.Task) *pb.Exit {
	exit, killed := c.box.Run(t)
	if killed {
		exit.Reason = killedWord
	}
	return exit
}

func (c *commands) until(id uint64, t time.Duration) { c.box.Until(id, t) }

func (c *commands) signal(id uint64, kind pb.Signal_Kind) {
	switch kind {
	case pb.Signal_FREEZE:
		c.box.Freeze(id, true)
	case pb.Signal_THAW:
		c.box.Freeze(id, false)
	case pb.Signal_KILL:
		c.box.Kill(id)
	}
}

func (c *commands) orphaned() { c.box.KillAll() }
