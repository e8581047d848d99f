package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/shoal-os/shoal/storage/exchange/sched/sim"
)

const groupSim = "sim"

// simCases runs the scheduler's simulation: no figure about this machine, but the promise that no swarm stalls.
func (b *swarmBench) simCases(seeds int) []testcase {
	return []testcase{{
		name: "simulation", group: groupSim, what: fmt.Sprintf("%d seeded swarms on virtual time, invariants checked at each step", seeds),
		run: func(ctx context.Context) (sample, error) { return simulate(ctx, seeds) },
	}}
}

func simulate(ctx context.Context, seeds int) (sample, error) {
	var bytes, twice, endgame int64
	began, before := time.Now(), processCPU(os.Getpid())
	for seed := range uint64(seeds) {
		if err := ctx.Err(); err != nil {
			return sample{}, err
		}
		r, err := sim.Run(seed)
		if err != nil {
			return sample{}, err
		}
		bytes, twice, endgame = bytes+r.Bytes, twice+r.Twice, endgame+r.Endgame
	}
	took := time.Since(began).Seconds()
	s := sample{rate: float64(seeds) / took, seconds: took, recv: result{CPU: processCPU(os.Getpid()) - before}}
	s.note = fmt.Sprintf("no stall; fetched twice: %.2f %%, in the endgame %.2f %% more",
		100*float64(twice)/float64(bytes), 100*float64(endgame)/float64(bytes))
	return s, nil
}
