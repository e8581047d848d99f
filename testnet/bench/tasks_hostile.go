package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/shoal-os/shoal/node/api/client"
	"github.com/shoal-os/shoal/tasks/exec/wasm/wat"
)

const (
	// hostileTime is how long each hostile guest may run, hostileAsk how often each peer's API is asked meanwhile.
	hostileTime = 3 * time.Second
	hostileAsk  = 10 * time.Millisecond
)

// hostileGuests are programs that take what they can get.
func hostileGuests() []struct {
	name string
	wasm []byte
	proc []string
} {
	return []struct {
		name string
		wasm []byte
		proc []string
	}{
		{name: "allocates without end", wasm: wat.Grow()},
		{name: "loops", wasm: wat.Loop()},
		{name: "writes to its output without end", wasm: wat.Chatter()},
		{name: "writes to a file without end", wasm: wat.Fill("out/x")},
		{name: "recurses", wasm: wat.Recurse()},
		{name: "opens what it may not", wasm: wat.Open("/etc/passwd", false)},
		{name: "forks without end", proc: []string{"-c", "f() { f | f & }; f; wait"}},
		{name: "allocates without end, native", proc: []string{"-c", "x=x; while :; do x=$x$x; done"}},
	}
}

// hostile runs guests that take what they can get, a task on each peer, and asks all peers' APIs meanwhile.
func (b *tasksBench) hostile(ctx context.Context) (sample, error) {
	if err := b.ready(ctx); err != nil {
		return sample{}, err
	}
	var all []time.Duration
	worst, worstOf := time.Duration(0), ""
	began := time.Now()
	guests := hostileGuests()
	for _, g := range guests {
		times, err := b.askDuring(ctx, func() error { return b.hostileJob(ctx, g.name, g.wasm, g.proc) })
		if err != nil {
			return sample{}, fmt.Errorf("a guest that %s: %w", g.name, err)
		}
		slices.Sort(times)
		if last := times[len(times)-1]; last > worst {
			worst, worstOf = last, g.name
		}
		all = append(all, times...)
	}
	note := fmt.Sprintf("%d guests on %d peers; %d questions: %s, the longest %.0f ms, while one %s", len(guests), taskWorkers, len(all),
		percentiles(all), worst.Seconds()*1000, worstOf)
	return sample{rate: float64(len(all)) / time.Since(began).Seconds(), seconds: time.Since(began).Seconds(), note: note}, nil
}

// hostileJob runs one guest on as many peers as there are, and sees to it that it is contained: it may not end well, unless it did
// nothing.
func (b *tasksBench) hostileJob(ctx context.Context, name string, wasm []byte, proc []string) error {
	p := client.JobProgram{Kind: "proc", Path: "sh", Args: proc}
	if wasm != nil {
		f, err := b.asker().JobStore(ctx, "hostile.wasm", bytes.NewReader(wasm))
		if err != nil {
			return err
		}
		p = client.JobProgram{Kind: "wasm", Module: &client.JobSource{Stored: &f}}
	}
	s, err := b.asker().JobSubmit(ctx, client.JobRequest{
		Name: name, Program: p, Fresh: true, Split: &client.JobSplit{Count: taskWorkers}, Time: hostileTime.Seconds(), Memory: 256 << 20,
		Failures: 1, AnyExit: true,
	}, nil)
	if err != nil {
		return err
	}
	j, err := b.asker().JobWatch(ctx, s.ID, func(client.JobEvent) error { return nil })
	if err == nil && j.State != client.JobDone && j.State != client.JobFailed {
		err = fmt.Errorf("the job ended as %s", j.State)
	}
	return err
}

// askDuring asks each peer's API how it is, again and again, while f runs, and returns how long each answer took.
func (b *tasksBench) askDuring(ctx context.Context, f func() error) (times []time.Duration, err error) {
	ctx, cancel := context.WithCancel(ctx)
	var mu sync.Mutex
	var failed error
	var wait sync.WaitGroup
	for _, m := range b.crew.mates {
		wait.Go(func() {
			tick := time.NewTicker(hostileAsk)
			defer tick.Stop()
			for {
				at := time.Now()
				_, err := m.client.Worker(ctx)
				took := time.Since(at)
				mu.Lock()
				if err == nil {
					times = append(times, took)
				} else if ctx.Err() == nil {
					failed = errors.Join(failed, err)
				}
				mu.Unlock()
				select {
				case <-tick.C:
				case <-ctx.Done():
					return
				}
			}
		})
	}
	err = f()
	cancel()
	wait.Wait()
	return times, errors.Join(err, failed)
}
