package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/shoal-os/shoal/node/api/client"
)

const (
	// lookEvery is how often a job is asked about: the grain of what a loss is measured with.
	lookEvery = 2 * time.Millisecond
	// lookMost bounds one question, for a peer may be asking one that is gone.
	lookMost = 300 * time.Millisecond
	lossWait = time.Minute
)

// seen waits, with a fine grain, until a job is as it should be, and returns when that was seen.
func seen(ctx context.Context, c *client.Client, id, what string, is func(client.Job) bool) (time.Time, client.Job, error) {
	ctx, cancel := context.WithTimeout(ctx, lossWait)
	defer cancel()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		look, done := context.WithTimeout(ctx, lookMost)
		j, err := c.Job(look, id)
		done()
		if at := time.Now(); err == nil && is(j) {
			return at, j, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return time.Time{}, j, fmt.Errorf("%s: %w (the job is %s, %d of %d done, %d leases)", what, errors.Join(err, ctx.Err()), j.State, j.Done, j.Tasks, len(j.Leases))
		}
	}
}

// runs waits until one of some peers says itself that it runs a task of a job, and returns when that was, and which. The
// leading steward hears of it with the next renewal only.
func (b *tasksBench) runs(ctx context.Context, id string, among []*mate) (time.Time, *mate, error) {
	ctx, cancel := context.WithTimeout(ctx, lossWait)
	defer cancel()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		for _, m := range among {
			look, done := context.WithTimeout(ctx, lookMost)
			w, err := m.client.Worker(look)
			done()
			at := time.Now()
			if err == nil && slices.ContainsFunc(w.Tasks, func(l client.JobLease) bool { return l.Job == id && l.Phase == "running" }) {
				return at, m, nil
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return time.Time{}, nil, fmt.Errorf("no peer runs the task: %w", ctx.Err())
		}
	}
}

// loss is how a peer goes.
type loss int

const (
	killed loss = iota
	silenced
)

// loseWorker starts a long task on a peer that is neither the submitter nor the leader, and takes that peer away.
func (b *tasksBench) loseWorker(ctx context.Context, how loss) (sample, error) {
	s, err := b.submit(ctx, b.native("sleep", "600"), func(r *client.JobRequest) { r.Needs = []string{runnerLabel} })
	if err != nil {
		return sample{}, err
	}
	runners := b.crew.mates[taskWorkers/2:]
	_, victim, err := b.runs(ctx, s.ID, runners)
	if err != nil {
		return sample{}, err
	}
	others := slices.DeleteFunc(slices.Clone(runners), func(m *mate) bool { return m == victim })
	gone := time.Now()
	if how == killed {
		b.crew.kill(victim)
	} else if err := suspend(victim.cmd.Process); err != nil {
		return sample{}, err
	}
	at, _, err := b.runs(ctx, s.ID, others)
	if how == silenced {
		err = errors.Join(err, unsuspend(victim.cmd.Process))
	} else {
		err = errors.Join(err, b.revive(ctx, victim))
	}
	if err != nil {
		return sample{}, err
	}
	if _, err := b.asker().JobKill(ctx, client.JobRequestByID{Job: s.ID, Why: "measured"}); err != nil {
		return sample{}, err
	}
	return lost(at.Sub(gone), "")
}

// lost is the sample of a time that a loss cost.
func lost(d time.Duration, note string) (sample, error) {
	return sample{rate: 1 / d.Seconds(), seconds: d.Seconds(), note: note}, nil
}

// mate finds a peer by its name.
func (b *tasksBench) mate(name string) (*mate, error) {
	i := slices.IndexFunc(b.crew.mates, func(m *mate) bool { return m.name == name && m.cmd != nil })
	if i < 0 {
		return nil, fmt.Errorf("no peer %q runs", name)
	}
	return b.crew.mates[i], nil
}

// revive starts a killed peer again on its home.
func (b *tasksBench) revive(ctx context.Context, m *mate) error {
	return errors.Join(b.crew.start(ctx, m), b.crew.together(ctx))
}

// leaderOf is the leading steward, by name.
func leaderOf(j client.Job) string {
	for _, s := range j.Stewards {
		if s.Leading {
			return s.Name
		}
	}
	return ""
}

// term is that of the leader who granted a lease.
func term(token string) int {
	for i, c := range token {
		if c < '0' || c > '9' {
			n, _ := strconv.Atoi(token[:i])
			return n
		}
	}
	n, _ := strconv.Atoi(token)
	return n
}

// newest is the greatest term among a job's leases.
func newest(j client.Job) (most int) {
	for _, l := range j.Leases {
		most = max(most, term(l.Token))
	}
	return most
}

// loseLeader kills the leading steward of a job of many short tasks, and asks another one.
func (b *tasksBench) loseLeader(ctx context.Context) (sample, error) {
	s, err := b.submit(ctx, b.native("sleep", "0.2"), func(r *client.JobRequest) { r.Split = &client.JobSplit{Count: 10_000} })
	if err != nil {
		return sample{}, err
	}
	_, j, err := seen(ctx, b.asker(), s.ID, "the job runs", func(j client.Job) bool { return j.Done >= taskWorkers && leaderOf(j) != "" })
	if err != nil {
		return sample{}, err
	}
	victim, err := b.mate(leaderOf(j))
	if err != nil {
		return sample{}, err
	}
	before := newest(j)
	witness := b.crew.mates[slices.IndexFunc(b.crew.mates, func(m *mate) bool { return m != victim })]
	gone := time.Now()
	b.crew.kill(victim)
	at, _, err := seen(ctx, witness.client, s.ID, "another steward grants", func(j client.Job) bool { return newest(j) > before })
	if err != nil {
		return sample{}, err
	}
	if err := b.revive(ctx, victim); err != nil {
		return sample{}, err
	}
	if _, err := witness.client.JobKill(ctx, client.JobRequestByID{Job: s.ID, Why: "measured"}); err != nil {
		return sample{}, err
	}
	return lost(at.Sub(gone), "")
}

// loseSubmitter stops the peer that asked, in the middle of its job, as a closed lid would.
func (b *tasksBench) loseSubmitter(ctx context.Context) (sample, error) {
	const tasks, each = 200, 0.1
	s, err := b.submit(ctx, b.native("sleep", fmt.Sprint(each)), func(r *client.JobRequest) { r.Split = &client.JobSplit{Count: tasks} })
	if err != nil {
		return sample{}, err
	}
	_, j, err := seen(ctx, b.asker(), s.ID, "half of the tasks", func(j client.Job) bool { return j.Done >= tasks/2 })
	if err != nil {
		return sample{}, err
	}
	witness := b.crew.mates[1]
	gone := time.Now()
	if err := suspend(b.crew.mates[0].cmd.Process); err != nil {
		return sample{}, err
	}
	end, err := finished(ctx, witness.client, s.ID)
	at := time.Now()
	if err := errors.Join(err, unsuspend(b.crew.mates[0].cmd.Process)); err != nil {
		return sample{}, err
	}
	ideal := float64(tasks-j.Done) * each / (taskWorkers - 1)
	return lost(at.Sub(gone), fmt.Sprintf("%d tasks were left, %.1f s of work for the other three; %d done", tasks-j.Done, ideal, end.Done))
}
