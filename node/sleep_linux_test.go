package node

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/shoal-os/shoal/dht/roster"
	"github.com/shoal-os/shoal/node/api/client"
	"github.com/shoal-os/shoal/tasks"
	"github.com/shoal-os/shoal/tasks/exec/wasm/wat"
	"github.com/shoal-os/shoal/tasks/job"
)

// toldWithin is how soon the others know of a closing lid. By silence it takes them roster.AwayAfter.
const toldWithin = roster.AwayAfter / (2 * patience)

// testBus is a message bus of a test's own, on a Unix socket.
type testBus struct {
	t      *testing.T
	dir    string
	daemon *exec.Cmd
}

const busConfig = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <listen>ADDRESS</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow own="*"/>
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
  </policy>
</busconfig>
`

func newBus(t *testing.T) *testBus {
	t.Helper()
	if _, err := exec.LookPath("dbus-daemon"); err != nil {
		t.Skipf("a bus of its own takes dbus-daemon (package dbus): %v", err)
	}
	b := &testBus{t: t, dir: t.TempDir()}
	if err := os.WriteFile(filepath.Join(b.dir, "config"), []byte(strings.ReplaceAll(busConfig, "ADDRESS", b.address())), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.stop)
	b.start()
	return b
}

func (b *testBus) address() string { return "unix:path=" + filepath.Join(b.dir, "bus") }

// start returns once the bus listens.
func (b *testBus) start() {
	b.t.Helper()
	b.daemon = exec.Command("dbus-daemon", "--config-file="+filepath.Join(b.dir, "config"), "--nofork", "--nopidfile", "--print-address")
	b.daemon.Stderr = b.t.Output()
	out, err := b.daemon.StdoutPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	if err := b.daemon.Start(); err != nil {
		b.t.Fatal(err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		b.t.Fatalf("dbus-daemon: %v", err)
	}
}

func (b *testBus) stop() {
	if b.daemon != nil {
		_ = b.daemon.Process.Kill()
		_ = b.daemon.Wait()
		b.daemon = nil
	}
}

// testLogind answers on a bus as logind would.
type testLogind struct {
	t     *testing.T
	conn  *dbus.Conn
	deny  bool
	locks chan testLock
}

// testLock is an inhibitor lock that was taken.
type testLock struct {
	args     []any
	released chan struct{} // closed when nobody has it open
}

func startLogind(t *testing.T, b *testBus, deny bool) *testLogind {
	t.Helper()
	conn, err := dbus.Connect(b.address())
	if err != nil {
		t.Fatal(err)
	}
	l := &testLogind{t: t, conn: conn, deny: deny, locks: make(chan testLock, 8)}
	t.Cleanup(l.stop)
	if reply, err := conn.RequestName(loginName, dbus.NameFlagDoNotQueue); err != nil || reply != dbus.RequestNameReplyPrimaryOwner {
		t.Fatal(reply, err)
	}
	calls := make(chan *dbus.Message, 64)
	conn.Eavesdrop(calls) // instead of Export, which does not say when an answer is out and its file may be closed
	go func() {
		for m := range calls {
			if m.Type == dbus.TypeMethodCall {
				l.answer(m)
			}
		}
	}()
	return l
}

func (l *testLogind) stop() { _ = l.conn.Close() }

func (l *testLogind) answer(call *dbus.Message) {
	member, _ := call.Headers[dbus.FieldMember].Value().(string)
	path, _ := call.Headers[dbus.FieldPath].Value().(dbus.ObjectPath)
	reply := &dbus.Message{Type: dbus.TypeMethodReply, Headers: map[dbus.HeaderField]dbus.Variant{
		dbus.FieldDestination: call.Headers[dbus.FieldSender], dbus.FieldReplySerial: dbus.MakeVariant(call.Serial()),
	}}
	if member != "Inhibit" || path != loginPath || l.deny {
		reply.Type = dbus.TypeError
		reply.Headers[dbus.FieldErrorName] = dbus.MakeVariant(busName + ".Error.AccessDenied")
		l.conn.Send(reply, nil)
		return
	}
	r, w, err := os.Pipe()
	if err != nil {
		l.t.Error(err)
		return
	}
	reply.Body = []any{dbus.UnixFD(w.Fd())}
	reply.Headers[dbus.FieldSignature] = dbus.MakeVariant(dbus.SignatureOf(reply.Body...))
	l.conn.Send(reply, nil) // returns when it is written
	_ = w.Close()
	lock := testLock{call.Body, make(chan struct{})}
	go func() {
		defer close(lock.released)
		defer r.Close()
		_, _ = io.Copy(io.Discard, r)
	}()
	l.locks <- lock
}

// sleeps tells whoever listens that the machine is about to sleep, or woke.
func (l *testLogind) sleeps(on bool) {
	l.t.Helper()
	if err := l.conn.Emit(loginPath, loginSleep, on); err != nil {
		l.t.Fatal(err)
	}
}

// taken waits for a lock.
func (l *testLogind) taken() testLock {
	l.t.Helper()
	return soon(l.t, "a lock is taken", l.locks)
}

func soon[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	limit := time.NewTimer(30 * time.Second)
	defer limit.Stop()
	select {
	case v := <-c:
		return v
	case <-limit.C:
		t.Fatalf("not within 30s: %s", what)
		panic("unreachable")
	}
}

func (l testLock) free() bool {
	select {
	case <-l.released:
		return true
	default:
		return false
	}
}

// lie tells everybody on a bus, in logind's words, that the machine is about to sleep. It returns when the bus passed it on.
func lie(t *testing.T, b *testBus) {
	t.Helper()
	liar, err := dbus.Connect(b.address())
	if err != nil {
		t.Fatal(err)
	}
	defer liar.Close()
	var names []string
	if err := liar.BusObject().Call(busName+".ListNames", 0).Store(&names); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		body := []any{true}
		liar.Send(&dbus.Message{Type: dbus.TypeSignal, Body: body, Headers: map[dbus.HeaderField]dbus.Variant{
			dbus.FieldPath: dbus.MakeVariant(loginPath), dbus.FieldInterface: dbus.MakeVariant(loginManager),
			dbus.FieldMember: dbus.MakeVariant("PrepareForSleep"), dbus.FieldDestination: dbus.MakeVariant(name),
			dbus.FieldSignature: dbus.MakeVariant(dbus.SignatureOf(body...)),
		}}, nil)
	}
	if err := liar.BusObject().Call(busName+".GetId", 0).Err; err != nil {
		t.Fatal(err)
	}
}

// sleepLine is what doctor says about sleep.
func sleepLine(t *testing.T, n *Node) string {
	t.Helper()
	d, err := n.Doctor(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range d.Checks {
		if c.Name == "sleep" {
			return c.Text
		}
	}
	return ""
}

// asker is a peer that has a task that never ends run by others, of those that have a label.
type asker struct {
	t      *testing.T
	c      *circle
	module job.File
}

func newAsker(t *testing.T, n *Node) asker {
	t.Helper()
	c := circleOf(t, n)
	f, err := c.tasks.Store(t.Context(), bytes.NewReader(wat.Loop()))
	if err != nil {
		t.Fatal(err)
	}
	return asker{t, c, f}
}

func (a asker) submit() job.ID {
	a.t.Helper()
	s, err := a.c.tasks.Submit(a.t.Context(), job.Spec{
		Command: job.Command{Kind: job.Wasm, Module: a.module}, Needs: []string{"works=yes"}, Resources: job.Resources{Memory: 16 << 20},
	}, tasks.SubmitOptions{Fresh: true})
	if err != nil {
		a.t.Fatal(err)
	}
	return s.ID
}

// runs reports whether the one task of a job runs on a worker, by its own word and the steward's.
func (a asker) runs(id job.ID, worker *Node) bool {
	info, err := a.c.tasks.Job(a.t.Context(), id)
	w, werr := worker.Worker(a.t.Context())
	return err == nil && werr == nil && len(info.Leases) == 1 && info.Leases[0].Worker == worker.ident.ID && w.Running == 1
}

func (a asker) runsOn(id job.ID, worker *Node) {
	a.t.Helper()
	within(a.t, toldWithin, "the task runs on "+worker.ident.Name, func() bool { return a.runs(id, worker) })
}

func (a asker) kill(id job.ID) {
	a.t.Helper()
	if err := a.c.tasks.Kill(a.t.Context(), id, ""); err != nil {
		a.t.Error(err)
	}
}

func TestAClosingLidIsTold(t *testing.T) {
	bus := newBus(t)
	logind := startLogind(t, bus, false)
	lends := Lend{Cores: 1, Labels: []string{"works=yes"}}
	silent := "unix:path=" + filepath.Join(t.TempDir(), "nobody")
	ada := startNamed(t, "ada", Config{Lend: Lend{Cores: -1}, bus: silent})
	bob := startNamed(t, "bob", Config{Lend: lends, bus: bus.address()})
	cy := startNamed(t, "cy", Config{Lend: lends, bus: silent})
	ticket := invite(t, ada, client.InviteRequest{Uses: 2})
	mustJoin(t, bob, ticket)
	mustJoin(t, cy, ticket)
	lock := logind.taken()
	if want := []any{"sleep", "shoal", "other machines take over what runs here", "delay"}; !slices.Equal(lock.args, want) {
		t.Errorf("asked for %q", lock.args)
	}
	within(t, toldWithin, "bob watches", func() bool { return strings.Contains(sleepLine(t, bob), "are told before") })
	if line := sleepLine(t, cy); !strings.Contains(line, "by silence, after 10s (logind: ") {
		t.Errorf("cy, which has no bus, says %q", line)
	}

	mine := func(n *Node, on bool) {
		t.Helper()
		if _, err := n.Mine(t.Context(), on); err != nil {
			t.Fatal(err)
		}
	}
	mine(cy, true)
	asks := newAsker(t, ada)
	first := asks.submit()
	asks.runsOn(first, bob)
	mine(cy, false)

	// Somebody else's word is not logind's, and bob is asked only after it has heard both.
	lie(t, bus)
	logind.sleeps(false)
	soon(t, "the lock is released", lock.released)
	lock = logind.taken()
	if !asks.runs(first, bob) {
		t.Error("a liar was believed")
	}

	logind.sleeps(true)
	asks.runsOn(first, cy)
	within(t, toldWithin, "bob is away", func() bool { return strings.Join(online(ada), " ") == "ada cy" })
	soon(t, "the lock is released", lock.released)
	if w, err := bob.Worker(t.Context()); err != nil || w.Cores != 0 || w.Running != 0 || len(w.Tasks) > 0 {
		t.Errorf("bob, asleep: %+v, %v", w, err)
	}

	mine(cy, true)
	logind.sleeps(false)
	lock = logind.taken()
	within(t, toldWithin, "bob is back", func() bool { return strings.Join(online(ada), " ") == "ada bob cy" })
	asks.runsOn(first, bob)
	asks.kill(first)
	if lock.free() {
		t.Error("the lock was released while it is awake")
	}

	// The bus ends, and with it what bob hears; all else goes on. A bus that comes back is found.
	logind.stop()
	bus.stop()
	within(t, toldWithin, "bob knows that it hears nothing", func() bool { return strings.Contains(sleepLine(t, bob), "by silence") })
	soon(t, "the lock is released", lock.released)
	second := asks.submit()
	asks.runsOn(second, bob)
	asks.kill(second)
	bus.start()
	logind = startLogind(t, bus, false)
	lock = logind.taken()

	// A logind that begins anew has forgotten who holds what.
	logind.stop()
	soon(t, "the lock is released", lock.released)
	logind = startLogind(t, bus, false)
	lock = logind.taken()

	if err := bob.Close(); err != nil {
		t.Error(err)
	}
	soon(t, "the lock is released", lock.released)
}

// Whatever the bus is like, a peer starts, and ends without delay and without leaving anything behind.
func TestABusThatDoesNotHelp(t *testing.T) {
	bus := newBus(t)
	mute, err := net.Listen("unix", filepath.Join(t.TempDir(), "mute"))
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	for _, c := range []struct{ about, address, says string }{
		{"there is none", "unix:path=" + filepath.Join(t.TempDir(), "nobody"), "no such file"},
		{"it is far away", "tcp:host=127.0.0.1,port=1", "Unix socket"},
		{"it says nothing", "unix:path=" + mute.Addr().String(), errLidNotYet.Error()},
		{"logind is not there", bus.address(), "no such name"},
		{"logind refuses", bus.address(), "AccessDenied"},
	} {
		var logind *testLogind
		if c.about == "logind refuses" {
			logind = startLogind(t, bus, true)
		}
		n := startNamed(t, "ada", Config{bus: c.address})
		if c.about == "it says nothing" {
			conn, err := mute.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
		}
		within(t, time.Second, c.about, func() bool { return strings.Contains(sleepLine(t, n), c.says) })
		if err := n.Close(); err != nil {
			t.Errorf("%s: %v", c.about, err)
		}
		if logind != nil {
			logind.stop()
		}
		within(t, time.Second, "nothing is left", func() bool {
			stacks := make([]byte, 1<<20)
			text := string(stacks[:runtime.Stack(stacks, true)])
			return !strings.Contains(text, "godbus") && !strings.Contains(text, "lidWatch")
		})
	}
}
