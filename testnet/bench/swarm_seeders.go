package main

import (
	"context"
	"fmt"

	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/testnet/netem"
)

// Several seeders with lines of their own to one getter, on the emulated network: a seeder that is far slower than the
// others must not hold the end of the file back.
const (
	groupSeeders = "seeders"

	fastSeeders = 4
	fastRate    = 80e6          // bits per second of each fast seeder's line
	slowRate    = fastRate / 20 // and of the slow one's
)

func (b *swarmBench) seederCases() []testcase {
	get := func(slow bool) func(context.Context) (sample, error) {
		return func(ctx context.Context) (sample, error) { return b.fromSeeders(ctx, slow) }
	}
	return []testcase{
		{name: "seeders", group: groupSeeders, what: fmt.Sprintf("shoal get from %d seeders", fastSeeders), run: get(false)},
		{name: "seeders-slow", group: groupSeeders, what: "and from one 20 times slower", floor: "seeders", run: get(true)},
	}
}

func (b *swarmBench) fromSeeders(ctx context.Context, slow bool) (sample, error) {
	seeders := fastSeeders
	if slow {
		seeders++
	}
	n, err := netem.New(netem.Config{Hosts: seeders + 1, Link: netem.Link{Delay: b.link.Delay / 10, Rate: fastRate}, TCP: b.tcp})
	if err != nil {
		return sample{}, err
	}
	defer n.Close()
	getter := seeders
	if slow {
		if err := n.Set(seeders-1, getter, netem.Link{Delay: b.link.Delay / 10, Rate: slowRate}); err != nil {
			return sample{}, err
		}
	}
	var link chunk.Link
	for i := range seeders {
		s, err := b.shoal.share(ctx, hostOf(n, i), onlyTCP, b.many.file)
		if err != nil {
			return sample{}, err
		}
		defer s.close()
		one, err := chunk.ParseLink(s.link)
		if err != nil {
			return sample{}, err
		}
		one.Addrs = append(link.Addrs, one.Addrs...)
		link = one
	}
	out, done := b.many.output()
	defer done()
	g, err := b.shoal.get(ctx, hostOf(n, getter), onlyTCP, link.String(), out)
	if err != nil {
		return sample{}, err
	}
	if err := check(out, b.many.fileSum, fileSum); err != nil {
		return sample{}, err
	}
	return sample{rate: float64(b.many.size) / 1e6 / g.elapsed, seconds: g.elapsed, whole: g.seconds, recv: g.usage}, nil
}

// hostOf is a host of the emulated network as a place for processes.
func hostOf(n *netem.Net, i int) place { return place{n.Host(i).Command, n.Host(i).Addr().String()} }
