package testnet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/shoal-os/shoal/node/api/client"
	"github.com/shoal-os/shoal/testnet/script"
)

// expect waits until something holds.
func (w *world) expect(ctx context.Context, a script.Action) (note string, err error) {
	wait := a.Within
	if wait == 0 {
		wait = expectWait
	}
	began := time.Now()
	err = eventually(ctx, wait, func(ctx context.Context) error { return w.holds(ctx, a) })
	return fmt.Sprintf("after %.1f s", time.Since(began).Seconds()), err
}

// eventually tries again until there is no error, at most for so long; then it returns the last one.
func eventually(ctx context.Context, wait time.Duration, check func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	tick := time.NewTicker(expectPoll)
	defer tick.Stop()
	var last error
	for {
		err := check(ctx)
		var skip skipped
		switch {
		case err == nil, errors.As(err, &skip):
			return err
		case ctx.Err() != nil:
			if last == nil {
				last = err
			}
			return fmt.Errorf("not within %v: %w", wait, last)
		}
		last = err
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// holds says why an expectation does not hold now.
func (w *world) holds(ctx context.Context, a script.Action) error {
	switch a.Arg {
	case "together":
		return w.together(ctx)
	case "names":
		return w.sameNames(ctx)
	case "safe":
		return w.safe(ctx)
	case "unmoved":
		return w.unmoved(ctx)
	case "away":
		return w.away(ctx, a.Peers, a.Sides)
	case "alone":
		return w.alone(ctx, a.Peers)
	case "done":
		k := w.work(a.Name)
		if k == nil {
			return fmt.Errorf("%s was never acknowledged", a.Name)
		}
		return w.over(ctx, k)
	case "works":
		return w.works(ctx, a)
	case "passed":
		return w.passed(ctx, a)
	case "direct", "relayed":
		return w.reached(ctx, a.Sides[0], a.Sides[1], a.Arg == "relayed")
	}
	return skipped{"this version of the testnet does not know how to expect " + a.Arg}
}

// views asks all live peers for the pool as they see it.
func (w *world) views(ctx context.Context) ([]*peer, []client.Pool, error) {
	live := w.live()
	views := make([]client.Pool, len(live))
	index := make([]int, len(live))
	at := map[int]int{}
	for n, p := range live {
		index[n], at[p.index] = p.index, n
	}
	err := w.each(index, len(index), func(p *peer) error {
		c, err := p.api()
		if err != nil {
			return err
		}
		views[at[p.index]], err = c.Pool(ctx)
		return err
	})
	return live, views, err
}

// together: all members that are up see each other online, and know what the others lend.
func (w *world) together(ctx context.Context) error {
	live, views, err := w.views(ctx)
	if err != nil {
		return err
	}
	for i, v := range views {
		online := map[string]client.Member{}
		for _, m := range v.Members {
			if m.State == "online" {
				online[m.Name] = m
			}
		}
		for _, other := range live {
			if m, ok := online[other.name]; !ok {
				return fmt.Errorf("%s does not see %s", live[i].name, other.name)
			} else if m.Lends.Space == 0 {
				return fmt.Errorf("%s does not know what %s lends", live[i].name, other.name)
			}
		}
		if err := w.offered(ctx, live[i], len(live)); err != nil {
			return err
		}
	}
	return nil
}

// offered: a peer knows of room on so many, before which it has nobody to give copies to.
func (w *world) offered(ctx context.Context, p *peer, want int) error {
	c, err := p.api()
	if err != nil {
		return err
	}
	s, err := c.FileSpace(ctx)
	if err != nil {
		return err
	}
	room := 0
	for _, m := range s.Members {
		if m.Space > 0 && m.State == "online" {
			room++
		}
	}
	if room < want {
		return fmt.Errorf("%s knows of room on %d of %d", p.name, room, want)
	}
	return nil
}

// sameNames: all members that are up hold the same names.
func (w *world) sameNames(ctx context.Context) error {
	live, views, err := w.views(ctx)
	if err != nil {
		return err
	}
	first := views[0].Names
	for i, v := range views {
		if v.Names.Digest != first.Digest {
			return fmt.Errorf("%s has %d names (%s), %s has %d (%s)", live[0].name, first.Records, first.Digest, live[i].name, v.Names.Records, v.Names.Digest)
		}
	}
	return nil
}

// safe: every byte has as many copies as it should, as every live peer sees it.
func (w *world) safe(ctx context.Context) error {
	repairs := map[int]int64{}
	for _, p := range w.live() {
		c, err := p.api()
		if err != nil {
			return err
		}
		s, err := c.FileSpace(ctx)
		if err != nil {
			return err
		}
		for _, class := range s.Classes {
			if class.Bytes > 0 && class.State != "safe" && class.State != "empty" {
				return fmt.Errorf("%s sees %s that are %s", p.name, bytesText(class.Bytes), class.State)
			}
		}
		repairs[p.index] = s.Repair.Bytes
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.repairs = repairs
	return nil
}

// unmoved: nothing was copied since all was last seen safe.
func (w *world) unmoved(ctx context.Context) error {
	w.mu.Lock()
	before := w.repairs
	w.mu.Unlock()
	if before == nil {
		return errors.New("`expect safe` comes before")
	}
	for _, p := range w.live() {
		c, err := p.api()
		if err != nil {
			return err
		}
		s, err := c.FileSpace(ctx)
		if err != nil {
			return err
		}
		if n := s.Repair.Bytes - before[p.index]; n > 0 {
			return fmt.Errorf("%s has copied %s", p.name, bytesText(n))
		}
	}
	return nil
}

// away: nobody else, or nobody of those by whom it is seen, thinks that these are online.
func (w *world) away(ctx context.Context, who []int, by [][]int) error {
	live, views, err := w.views(ctx)
	if err != nil {
		return err
	}
	for i, v := range views {
		if len(by) > 0 && !slices.Contains(by[0], live[i].index) {
			continue
		}
		for _, m := range v.Members {
			for _, gone := range who {
				if m.Name == w.peers[gone].name && m.State == "online" && !m.Self {
					return fmt.Errorf("%s takes %s to be online", live[i].name, m.Name)
				}
			}
		}
	}
	return nil
}

// alone: each of these sees nobody else online.
func (w *world) alone(ctx context.Context, who []int) error {
	for _, i := range who {
		c, err := w.peers[i].api()
		if err != nil {
			return err
		}
		v, err := c.Pool(ctx)
		if err != nil {
			return err
		}
		if v.Totals.Members > 1 {
			return fmt.Errorf("%s sees %d online", w.peers[i].name, v.Totals.Members)
		}
	}
	return nil
}

// reached: each of the one side reaches each of the other directly, or only by way of a relay.
func (w *world) reached(ctx context.Context, from, to []int, relayed bool) error {
	if w.ground.mode() == GroundProcesses {
		return skipped{noNetwork}
	}
	for _, i := range from {
		c, err := w.peers[i].api()
		if err != nil {
			return err
		}
		v, err := c.Pool(ctx)
		if err != nil {
			return err
		}
		for _, j := range to {
			if i == j {
				continue
			}
			if err := pathIs(v, w.peers[i].name, w.peers[j].name, relayed); err != nil {
				return err
			}
		}
	}
	return nil
}

func pathIs(v client.Pool, from, to string, relayed bool) error {
	for _, m := range v.Members {
		if m.Name != to {
			continue
		}
		if m.State != "online" || len(m.Paths) == 0 {
			return fmt.Errorf("%s does not reach %s", from, to)
		}
		var words []string
		for _, path := range m.Paths {
			words = append(words, path.Transport+" "+path.Remote)
		}
		if best := m.Paths[0].Transport; (best == "relay") != relayed {
			return fmt.Errorf("%s reaches %s by %s", from, to, strings.Join(words, ", "))
		}
		return nil
	}
	return fmt.Errorf("%s does not know %s", from, to)
}
