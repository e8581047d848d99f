package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/multiformats/go-multiaddr"

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
	get := func(last extra) func(context.Context) (sample, error) {
		return func(ctx context.Context) (sample, error) { return b.fromSeeders(ctx, last) }
	}
	return []testcase{
		{name: "seeders", group: groupSeeders, what: fmt.Sprintf("shoal get from %d seeders", fastSeeders), run: get(nobody)},
		{name: "seeders-slow", group: groupSeeders, what: "and from one 20 times slower", floor: "seeders", run: get(slowOne)},
		{name: "seeders-liar", group: groupSeeders, what: "and from one whose bytes are wrong", floor: "seeders", run: get(liar)},
	}
}

// extra is the seeder beside the fast honest ones.
type extra int

const (
	nobody extra = iota
	slowOne
	liar
)

func (b *swarmBench) fromSeeders(ctx context.Context, last extra) (sample, error) {
	seeders := fastSeeders
	if last != nobody {
		seeders++
	}
	n, err := netem.New(netem.Config{Hosts: seeders + 1, Link: netem.Link{Delay: b.link.Delay / 10, Rate: fastRate}, TCP: b.tcp})
	if err != nil {
		return sample{}, err
	}
	defer n.Close()
	getter := seeders
	if last == slowOne {
		if err := n.Set(seeders-1, getter, netem.Link{Delay: b.link.Delay / 10, Rate: slowRate}); err != nil {
			return sample{}, err
		}
	}
	var link chunk.Link
	var lying string
	for i := range seeders {
		path, spoil := b.many.file, func() error { return nil }
		if last == liar && i == seeders-1 {
			var err error
			if path, spoil, err = spoiled(b.many.file); err != nil {
				return sample{}, err
			}
			defer os.Remove(path)
		}
		s, err := b.shoal.share(ctx, hostOf(n, i), onlyTCP, path)
		if err != nil {
			return sample{}, err
		}
		defer s.close()
		if err := spoil(); err != nil {
			return sample{}, err
		}
		one, err := chunk.ParseLink(s.link)
		if err != nil {
			return sample{}, err
		}
		if path != b.many.file {
			lying, _ = one.Addrs[0].ValueForProtocol(multiaddr.P_P2P)
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
	got := sample{rate: float64(b.many.size) / 1e6 / g.elapsed, seconds: g.elapsed, whole: g.seconds, recv: g.usage}
	if last == liar {
		if !slices.Equal(g.banned, []string{lying}) {
			return sample{}, fmt.Errorf("banned %v, the liar is %s", g.banned, lying)
		}
		got.note = "the liar, and nobody else, was named"
	}
	return got, nil
}

// spoiled copies a file. Once the copy is shared, spoil changes a byte in every chunk and puts the time of the last
// change back: its seeder lies without knowing it.
func spoiled(file string) (path string, spoil func() error, err error) {
	path = file + ".spoiled"
	if err := copyFile(path, file); err != nil {
		return "", nil, err
	}
	before, err := os.Stat(path)
	return path, func() error {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		var one [1]byte
		for at := int64(0); at < before.Size() && err == nil; at += chunk.LeafSize {
			if _, err = f.ReadAt(one[:], at); err == nil {
				one[0] ^= 1
				_, err = f.WriteAt(one[:], at)
			}
		}
		return errors.Join(err, f.Close(), os.Chtimes(path, before.ModTime(), before.ModTime()))
	}, err
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// hostOf is a host of the emulated network as a place for processes.
func hostOf(n *netem.Net, i int) place { return place{n.Host(i).Command, n.Host(i).Addr().String()} }
