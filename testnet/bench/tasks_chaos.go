package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/shoal-os/shoal/node/api/client"
)

const (
	chaosKill = 2 * time.Second // between two kills of a worker
	chaosLook = 20 * time.Millisecond
	chaosSeed = 7
	chaosTask = `sleep 0.05; echo "$SHOAL_TASK $((SHOAL_TASK * SHOAL_TASK))"`
)

// chaosRun is one job whose peers are killed while it runs.
type chaosRun struct {
	b       *tasksBench
	id      string
	rng     *rand.Rand
	granted map[int]int // leases that the leader of each term has granted
	flying  int         // tasks that were in the hands of those that were killed
	kills   int
	led     bool // the leading steward was killed
	paused  bool // the submitter was stopped
}

// chaos runs tasks while a random worker is killed every two seconds and started again, the leading steward is killed once, and the
// submitter stops half-way. Every task must have one result, and that of a local run.
func (b *tasksBench) chaos(ctx context.Context) (sample, error) {
	if err := b.end(); err != nil {
		return sample{}, err
	}
	s, err := b.submit(ctx, b.native("sh", "-c", chaosTask), func(r *client.JobRequest) { r.Split = &client.JobSplit{Count: b.sizes.chaos} })
	if err != nil {
		return sample{}, err
	}
	c := &chaosRun{b: b, id: s.ID, rng: rand.New(rand.NewPCG(chaosSeed, 1)), granted: map[int]int{}}
	began := time.Now()
	if err := c.play(ctx); err != nil {
		return sample{}, err
	}
	elapsed := time.Since(began).Seconds()
	if err := c.check(ctx); err != nil {
		return sample{}, err
	}
	attempts := 0
	for _, n := range c.granted {
		attempts += n
	}
	again := attempts - b.sizes.chaos
	note := fmt.Sprintf("%d kills, the leader among them: %v, the submitter stopped: %v; %d results, each once, as of a local run; %d attempts, %d again, %d of these in flight on the killed: %.1f %% beyond",
		c.kills, c.led, c.paused, b.sizes.chaos, attempts, again, c.flying, 100*float64(max(0, again-c.flying))/float64(b.sizes.chaos))
	return sample{rate: float64(b.sizes.chaos) / elapsed, seconds: elapsed, note: note}, b.end()
}

// witness is a peer that runs, other than the submitter.
func (c *chaosRun) witness() *mate {
	for _, m := range c.b.crew.mates[1:] {
		if m.cmd != nil {
			return m
		}
	}
	return nil
}

// play goes on until the job is over.
func (c *chaosRun) play(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	next := time.Now().Add(chaosKill)
	for {
		look, done := context.WithTimeout(ctx, time.Second)
		j, err := c.witness().client.Job(look, c.id)
		done()
		if err == nil {
			if j.Over() {
				return nil
			}
			c.note(j)
			if time.Now().After(next) && leaderOf(j) != "" {
				if err := c.strike(ctx, j); err != nil {
					return err
				}
				next = time.Now().Add(chaosKill)
			}
		}
		if err := pause(ctx, chaosLook); err != nil {
			return errors.Join(err, fmt.Errorf("the job is %s: %d of %d tasks done", j.State, j.Done, j.Tasks))
		}
	}
}

// note remembers how many leases were granted in each term.
func (c *chaosRun) note(j client.Job) {
	if t := newest(j); t > 0 {
		c.granted[t] = max(c.granted[t], j.Attempts)
	}
}

// strike takes one peer away: the submitter for good once half is done, the leader once, else any worker but those.
func (c *chaosRun) strike(ctx context.Context, j client.Job) error {
	mates := c.b.crew.mates
	leader := leaderOf(j)
	if !c.paused && j.Done >= j.Tasks/2 {
		c.paused = true
		c.take(j, mates[0])
		return nil // it stays away
	}
	if !c.led && j.Done >= j.Tasks/4 {
		victim, err := c.b.mate(leader)
		if err != nil {
			return err
		}
		c.led = true
		c.take(j, victim)
		return c.b.crew.start(ctx, victim)
	}
	var workers []*mate
	for _, m := range mates[1:] {
		if m.cmd != nil && m.name != leader {
			workers = append(workers, m)
		}
	}
	if len(workers) == 0 {
		return nil
	}
	victim := workers[c.rng.IntN(len(workers))]
	c.take(j, victim)
	return c.b.crew.start(ctx, victim)
}

// take kills a peer and counts what it had in its hands.
func (c *chaosRun) take(j client.Job, m *mate) {
	for _, l := range j.Leases {
		if l.Worker == m.name {
			c.flying++
		}
	}
	c.kills++
	c.b.crew.kill(m)
}

// check compares all results with those of a local run.
func (c *chaosRun) check(ctx context.Context) error {
	n := 0
	err := c.witness().client.JobResults(ctx, c.id, 0, 0, func(r client.TaskResult) error {
		want := fmt.Appendf(nil, "%d %d\n", r.Task, r.Task*r.Task)
		if r.State != client.TaskDone || !bytes.Equal(r.Stdout.Inline, want) || r.Task != n {
			return fmt.Errorf("task %d is %s with %q", r.Task, r.State, r.Stdout.Inline)
		}
		n++
		return nil
	})
	if err == nil && n != c.b.sizes.chaos {
		err = fmt.Errorf("%d results", n)
	}
	return err
}
