package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/shoal-os/shoal/node/api/client"
)

// lendsNothing is the value of --store for a peer that keeps no copies.
const lendsNothing = "-1"

// crew is a pool of real shoal processes on loopback.
type crew struct {
	p     *peers
	mates []*mate
}

// mate is one of its peers.
type mate struct {
	name, home string
	flags      []string // of its `up`
	cmd        *exec.Cmd
	log        bytes.Buffer
	client     *client.Client
}

// newCrew starts a peer for each set of flags and has all join the first.
func newCrew(ctx context.Context, p *peers, flags ...[]string) (*crew, error) {
	c := &crew{p: p}
	for i, f := range flags {
		m := &mate{name: fmt.Sprintf("mate%d", i), flags: append([]string{"--name", fmt.Sprintf("mate%d", i)}, f...)}
		c.mates = append(c.mates, m)
		if err := c.start(ctx, m); err != nil {
			return c, err
		}
	}
	ticket, err := c.run(ctx, c.mates[0], "invite", "--uses", fmt.Sprint(len(flags)))
	if err != nil {
		return c, err
	}
	for _, m := range c.mates[1:] {
		if _, err := c.run(ctx, m, "join", "--yes", strings.TrimSpace(ticket)); err != nil {
			return c, err
		}
	}
	if err := c.together(ctx); err != nil {
		return c, err
	}
	return c, c.offering(ctx)
}

// offering waits until all know what all lend, before which there is nobody to give copies to.
func (c *crew) offering(ctx context.Context) error {
	lenders := 0
	for _, m := range c.mates {
		if !slices.Contains(m.flags, lendsNothing) {
			lenders++
		}
	}
	return await(ctx, "all know what all lend", func() bool {
		for _, m := range c.mates {
			s, err := m.space(ctx)
			known := 0
			for _, other := range s.Members {
				if other.Space > 0 {
					known++
				}
			}
			if err != nil || known < lenders {
				return false
			}
		}
		return true
	})
}

// start runs a mate on its home, which it gets if it has none.
func (c *crew) start(ctx context.Context, m *mate) error {
	cmd, home, err := c.p.command(ctx, here, bothTransports, append([]string{"up"}, m.flags...)...)
	if err != nil {
		return err
	}
	if m.home == "" {
		m.home = home
	}
	cmd.Env = append(cmd.Env, "SHOAL_HOME="+m.home)
	cmd.Stderr, m.cmd = &m.log, cmd
	if err := cmd.Start(); err != nil {
		m.cmd = nil
		return err
	}
	return await(ctx, m.name+" answers", func() bool {
		if m.client, err = client.Open(m.home); err != nil {
			return false
		}
		_, err = m.client.Status(ctx)
		return err == nil
	})
}

// together waits until all that run see each other.
func (c *crew) together(ctx context.Context) error {
	return await(ctx, "all see all", func() bool {
		running := 0
		for _, m := range c.mates {
			if m.cmd != nil {
				running++
			}
		}
		for _, m := range c.mates {
			if m.cmd == nil {
				continue
			}
			pool, err := m.client.Pool(ctx)
			if err != nil || pool.Totals.Members < running {
				return false
			}
		}
		return true
	})
}

// run is a command on a mate's home; its standard output comes back.
func (c *crew) run(ctx context.Context, m *mate, args ...string) (string, error) {
	out, _, err := c.timed(ctx, m, args...)
	return out, err
}

// timed is run with the seconds that the whole command took.
func (c *crew) timed(ctx context.Context, m *mate, args ...string) (string, float64, error) {
	cmd := exec.CommandContext(ctx, c.p.binary, args...)
	cmd.Env = append(m.cmd.Env[:len(m.cmd.Env):len(m.cmd.Env)], "NO_COLOR=1")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	began := time.Now()
	err := cmd.Run()
	if err != nil {
		err = fmt.Errorf("shoal %s: %w\n%s", args[0], err, lastLines(errs.String()))
	}
	return out.String(), time.Since(began).Seconds(), err
}

// kill ends a mate as a power cut would, as far as its process goes.
func (c *crew) kill(m *mate) {
	m.cmd.Process.Kill()
	m.cmd.Wait()
	m.cmd = nil
}

func (c *crew) close() {
	for _, m := range c.mates {
		if m.cmd == nil {
			continue
		}
		m.cmd.Process.Signal(syscall.SIGTERM)
		late := time.AfterFunc(5*time.Second, func() { m.cmd.Process.Kill() })
		m.cmd.Wait()
		late.Stop()
		os.RemoveAll(m.home)
	}
}

// space is a mate's view of the pool's disk.
func (m *mate) space(ctx context.Context) (client.Space, error) { return m.client.FileSpace(ctx) }

// inClass is how many bytes are in a class of safety.
func inClass(s client.Space, state string) (n int64) {
	for _, c := range s.Classes {
		if c.State == state {
			n += c.Bytes
		}
	}
	return n
}

// heldBy is what the mates that run hold of pool files together.
func heldBy(s client.Space, mates []*mate) (n int64) {
	for _, m := range s.Members {
		if slices.ContainsFunc(mates, func(mate *mate) bool { return mate.cmd != nil && mate.name == m.Name }) {
			n += m.Held
		}
	}
	return n
}

// transferOf reads what put and get print with --json.
func transferOf(out string) (t client.FileTransfer, err error) {
	if err = json.Unmarshal([]byte(out), &t); err == nil && t.Elapsed <= 0 {
		err = errors.New("no elapsed_s")
	}
	return t, err
}
