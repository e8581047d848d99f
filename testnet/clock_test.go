package testnet

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// clockOf is the clock that a peer's process would open, until the test ends.
func clockOf(t *testing.T, p *peer) *Clock {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	t.Cleanup(stop)
	c, err := OpenClock(ctx, p.clock)
	must(t, err)
	return c
}

func wrongBy(c *Clock) time.Duration { return c.Now().Sub(time.Now().Round(0)) }

// TestAClockJumps: a jump is over when the peer goes by it, jumps add up, and a peer that is started again is as wrong as before.
func TestAClockJumps(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		p := &peer{name: "p1", clock: filepath.Join(dir, "clock"), cmd: &exec.Cmd{}, exited: make(chan struct{})}
		var skip skipped
		if err := p.shift(t.Context(), time.Hour); !errors.As(err, &skip) {
			t.Errorf("a program that knows of no such clock: %v", err)
		}
		c := clockOf(t, p)
		if d := wrongBy(c); d != 0 {
			t.Errorf("at first it is wrong by %v", d)
		}
		for _, step := range []struct{ by, want time.Duration }{
			{2 * time.Hour, 2 * time.Hour}, {-90 * time.Second, 2*time.Hour - 90*time.Second}, {-5 * time.Hour, -3*time.Hour - 90*time.Second},
		} {
			must(t, p.shift(t.Context(), step.by))
			if d := wrongBy(c); d != step.want {
				t.Errorf("after %v it is wrong by %v", step.by, d)
			}
		}
		if d := wrongBy(clockOf(t, p)); d != -3*time.Hour-90*time.Second {
			t.Errorf("the next process is wrong by %v", d)
		}
	})
}

// TestAClockJumpsUnseen: one that is down or asleep is not waited for, nor one that ends meanwhile.
func TestAClockJumpsUnseen(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		p := &peer{name: "p1", clock: filepath.Join(dir, "clock")}
		must(t, p.shift(t.Context(), time.Hour))
		p.cmd, p.exited, p.paused = &exec.Cmd{}, make(chan struct{}), true
		must(t, p.shift(t.Context(), time.Hour))
		if d := wrongBy(clockOf(t, p)); d != 2*time.Hour {
			t.Errorf("it comes back wrong by %v", d)
		}
	})
	p := &peer{name: "p2", clock: filepath.Join(dir, "other"), cmd: &exec.Cmd{}, exited: make(chan struct{})}
	must(t, os.WriteFile(p.clock+clockTaken, []byte("0s"), 0o600))
	close(p.exited)
	must(t, p.shift(t.Context(), time.Hour))
	ctx, stop := context.WithCancel(t.Context())
	stop()
	p.exited = nil
	if err := p.shift(ctx, time.Hour); !errors.Is(err, context.Canceled) {
		t.Errorf("nobody looks at the file: %v", err)
	}
}

// TestAClockThatIsNone: what is no duration is told at the start.
func TestAClockThatIsNone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "clock")
	must(t, os.WriteFile(path, []byte("soon"), 0o600))
	if _, err := OpenClock(t.Context(), path); err == nil {
		t.Error("it was taken for a clock")
	}
}
