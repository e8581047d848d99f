package testnet

import (
	"context"
	"time"

	"github.com/shoal-os/shoal/testnet/report"
)

const (
	watchEvery = time.Second
	watchWait  = 2 * time.Second // for one answer
	samplesMax = 10_000
)

// watch takes a sample now and then, until ctx ends.
func (w *world) watch(ctx context.Context) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for n := 0; n < samplesMax; n++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		s := w.sample(ctx)
		w.mu.Lock()
		w.out.Samples = append(w.out.Samples, s)
		w.mu.Unlock()
	}
}

// sample asks the processes' sizes of the system, and one live peer for the pool.
func (w *world) sample(ctx context.Context) report.Sample {
	s := report.Sample{At: w.now()}
	for i, p := range w.peers {
		s.RSS += p.sample()
		sent, _ := w.ground.sent(i)
		s.Sent += sent
	}
	live := w.live()
	s.Up = len(live)
	ctx, cancel := context.WithTimeout(ctx, watchWait)
	defer cancel()
	for _, p := range live {
		c, err := p.api()
		if err != nil {
			continue
		}
		space, err := c.FileSpace(ctx)
		if err != nil {
			continue
		}
		s.Names = space.Files
		s.Copies = map[string]int64{}
		for _, class := range space.Classes {
			if class.Bytes > 0 {
				s.Copies[class.State] = class.Bytes
			}
		}
		w.attempts(ctx, c)
		break
	}
	return s
}
