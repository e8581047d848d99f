package testnet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/shoal-os/shoal/node/api/client"
	"github.com/shoal-os/shoal/testnet/report"
)

const (
	answerWait = 60 * time.Second // until a peer that was started answers
	endWait    = time.Minute      // until one that was told to stop has ended: machines that run many peers are slow
	pollEvery  = 50 * time.Millisecond
	// portOfPeer is where peers with an address of their own listen.
	portOfPeer = 4001
	// logTail is how much of a peer's log is searched for the words of a crash.
	logTail = 8 << 20
)

// peer is one peer: a home, and a process while it is up.
type peer struct {
	w      *world
	index  int
	name   string
	home   string
	log    string
	binary string

	clock string // the file that says how wrong its clock is

	changing sync.Mutex // held by who starts or ends it, or changes its disk or clock
	disk     disk
	wrong    time.Duration // its clock, against this machine's

	mu      sync.Mutex
	cmd     *exec.Cmd
	client  *client.Client
	exited  chan struct{} // of cmd
	wanted  bool          // the end of cmd was asked for
	paused  bool
	crashes []string
	left    bool
	enemy   *enemy // a hostile program in its place
	member  bool   // of the founder's pool
	started bool   // ever
	rss     int64  // most so far
	cpu     float64
	lives   []report.Life
}

func (w *world) newPeer(i int) *peer {
	name := fmt.Sprintf("p%d", i+1)
	dir := filepath.Join(w.cfg.Dir, name)
	binary := w.cfg.Binary
	if w.cfg.Previous != "" && w.plan.Has("upgrade") {
		binary = w.cfg.Previous
	}
	return &peer{w: w, index: i, name: name, home: filepath.Join(dir, "home"), log: filepath.Join(dir, "log"), clock: filepath.Join(dir, "clock"), binary: binary}
}

// command is the program in this peer's home, with nothing taken from whoever runs the testnet.
func (p *peer) command(args ...string) *exec.Cmd {
	cmd := exec.Command(p.binary, args...)
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "SHOAL_") {
			cmd.Env = append(cmd.Env, e)
		}
	}
	ip, fixed := p.w.ground.addr(p.index)
	port := 0
	if fixed {
		port = portOfPeer
	}
	cmd.Env = append(cmd.Env, "SHOAL_HOME="+p.home, "SHOAL_LAN=false", "SHOAL_UPNP=false", "NO_COLOR=1", "GORACE=atexit_sleep_ms=0",
		fmt.Sprintf("SHOAL_LISTEN=/ip4/%s/tcp/%d,/ip4/%s/udp/%d/quic-v1", ip, port, ip, port))
	if p.w.plan.Has("clock") {
		cmd.Env = append(cmd.Env, ClockEnv+"="+p.clock)
	}
	return cmd
}

// start starts the process and waits until it answers.
func (p *peer) start(ctx context.Context) error {
	p.changing.Lock()
	defer p.changing.Unlock()
	if p.running() {
		return nil
	}
	if err := os.MkdirAll(p.home, 0o700); err != nil {
		return err
	}
	if err := p.giveDisk(); err != nil {
		return fmt.Errorf("a disk for %s: %w", p.name, err)
	}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := p.command(append([]string{"up", "--name", p.name}, p.w.upFlags()...)...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := p.w.ground.start(p.index, cmd); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	exited := make(chan struct{})
	p.mu.Lock()
	p.cmd, p.exited, p.wanted, p.started = cmd, exited, false, true
	p.lives = append(p.lives, report.Life{From: p.w.now(), State: "starting"})
	p.mu.Unlock()
	go p.await(cmd, exited)
	return p.answer(ctx, exited)
}

// await notes the end of the process.
func (p *peer) await(cmd *exec.Cmd, exited chan struct{}) {
	err := cmd.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cpu += (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()
	end := "ended"
	if !p.wanted {
		end = "crashed"
		text := "exit 0"
		if err != nil {
			text = err.Error()
		}
		p.crashes = append(p.crashes, fmt.Sprintf("%s ended by itself after %.1f s: %s", p.name, p.w.now(), text))
		p.w.logLine("%s ENDED BY ITSELF: %s", p.name, text)
	}
	p.endLife(end)
	p.cmd, p.paused = nil, false
	if p.client != nil {
		p.client.Close()
		p.client = nil
	}
	close(exited)
}

// endLife closes the last life; the lock is held.
func (p *peer) endLife(how string) {
	if n := len(p.lives); n > 0 && p.lives[n-1].To == 0 {
		p.lives[n-1].To = p.w.now()
		if p.lives[n-1].End == "" {
			p.lives[n-1].End = how
		}
	}
}

// enter begins another life; the lock is held.
func (p *peer) enter(state string) {
	p.endLife("")
	p.lives = append(p.lives, report.Life{From: p.w.now(), State: state})
}

// answer waits until the peer answers at its API.
func (p *peer) answer(ctx context.Context, exited chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		if c, err := client.Open(p.home); err == nil {
			if _, err = c.ID(ctx); err == nil {
				p.mu.Lock()
				if p.cmd != nil && p.exited == exited {
					p.client = c
					p.enter("up")
				} else {
					c.Close()
				}
				p.mu.Unlock()
				return nil
			}
			c.Close()
		}
		select {
		case <-exited:
			return fmt.Errorf("%s ended before it answered: %s", p.name, p.lastWords())
		case <-ctx.Done():
			return fmt.Errorf("%s does not answer: %w: %s", p.name, ctx.Err(), p.lastWords())
		case <-tick.C:
		}
	}
}

// lastWords is the last line of the peer's log.
func (p *peer) lastWords() string {
	lines := bytes.Split(bytes.TrimSpace(p.readLog()), []byte("\n"))
	return string(lines[len(lines)-1])
}

func (p *peer) readLog() []byte {
	f, err := os.Open(p.log)
	if err != nil {
		return nil
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > logTail {
		_, _ = f.Seek(-logTail, io.SeekEnd)
	}
	data, _ := io.ReadAll(io.LimitReader(f, logTail))
	return data
}

// running says whether there is a process.
func (p *peer) running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd != nil
}

// api returns the client of a peer that answers.
func (p *peer) api() (*client.Client, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.cmd == nil || p.client == nil:
		return nil, fmt.Errorf("%s is not up", p.name)
	case p.paused:
		return nil, fmt.Errorf("%s is asleep", p.name)
	}
	return p.client, nil
}

// end ends the process by kill -9, or by asking it to stop; how is the word for the report.
func (p *peer) end(how string) error {
	p.changing.Lock()
	defer p.changing.Unlock()
	p.mu.Lock()
	cmd, exited, c, paused := p.cmd, p.exited, p.client, p.paused
	if cmd == nil {
		p.mu.Unlock()
		return nil
	}
	p.wanted = true
	if n := len(p.lives); n > 0 {
		p.lives[n-1].End = how
	}
	p.mu.Unlock()
	if how == "killed" {
		err := cmd.Process.Kill()
		<-exited
		return ignoreDone(err)
	}
	if paused {
		_ = unsuspend(cmd.Process)
	}
	if c != nil {
		ctx, cancel := context.WithTimeout(context.Background(), endWait)
		defer cancel()
		_, _ = c.Down(ctx) // or else the signal does it
	}
	_ = stop(cmd.Process)
	late := time.NewTimer(endWait)
	defer late.Stop()
	select {
	case <-exited:
		return nil
	case <-late.C:
		_ = cmd.Process.Kill()
		<-exited
		return fmt.Errorf("%s did not stop within %v", p.name, endWait)
	}
}

func ignoreDone(err error) error {
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// pause suspends the process, as a closed lid does; or lets it go on.
func (p *peer) pause(on bool) error {
	p.changing.Lock()
	defer p.changing.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil || p.paused == on {
		return nil
	}
	act, state := unsuspend, "up"
	if on {
		act, state = suspend, "paused"
	}
	if err := act(p.cmd.Process); err != nil {
		return ignoreDone(err)
	}
	p.paused = on
	p.enter(state)
	return nil
}

// sample reads what the process takes.
func (p *peer) sample() (rss int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return 0
	}
	now, most, ok := residentOf(p.cmd.Process.Pid)
	if !ok {
		return 0
	}
	p.rss = max(p.rss, most)
	return now
}
