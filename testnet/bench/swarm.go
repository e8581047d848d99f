package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shoal-os/shoal/node/api/client"
	"github.com/shoal-os/shoal/testnet/netem"
)

const (
	groupMany = "many"
	groupWide = "wide"

	manyGetters = 4
)

// swarmBench is one run of `bench swarm`.
type swarmBench struct {
	one   *shareBench // one large file and many small ones, from one to one
	many  *shareBench // the file that goes to many and comes from many, and where received files go
	wide  *shareBench // the smaller file that crosses the emulated link
	link  netem.Link
	tcp   string
	shoal *peers
	turns map[string]uint64
}

// swarmSizes is how much of each there is; 0 leaves it out.
type swarmSizes struct {
	one, many, wide, memory size
	files, seeds            int
}

func (z *swarmSizes) flags(fs *flag.FlagSet) {
	*z = swarmSizes{one: 1 << 30, many: 256 << 20, wide: 4 << 20, memory: 10 << 30, files: 10_000, seeds: 10_000}
	fs.Var(&z.one, "one-size", "size of the file that goes from one to one; 0 leaves it out")
	fs.IntVar(&z.files, "files", z.files, "number of files of 4 KiB that go from one to one; 0 leaves them out")
	fs.Var(&z.many, "size", "size of the file that goes to several at once and comes from several; 0 leaves it out")
	fs.Var(&z.wide, "wide-size", "size of the file that crosses the emulated link; 0 leaves it out")
	fs.Var(&z.memory, "memory-size", "size of the sparse file whose transfer's memory is measured; 0 leaves it out")
	fs.IntVar(&z.seeds, "seeds", z.seeds, "how many swarms of the scheduler to simulate; 0 leaves them out")
}

func runSwarm(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("bench swarm", flag.ContinueOnError)
	var sizes swarmSizes
	sizes.flags(fs)
	delay := fs.Duration("delay", 50*time.Millisecond, "delay of the emulated link, each way")
	loss := fs.Float64("loss", 0.01, "loss of the emulated link, each way, 0 to 1")
	rate := fs.Int64("rate", 0, "bits per second of the emulated link; 0 is unlimited")
	tcp := fs.String("tcp", "", "congestion control of TCP on the emulated link (reno works on every machine); empty is this machine's own")
	opts := addRunFlags(fs, 3)
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 || opts.runs < 1 {
		return errors.New("swarm: bad arguments; see swarm --help")
	}
	return inTemporaryFolder(func(dir string) error {
		b := &swarmBench{link: netem.Link{Delay: *delay, Loss: *loss, Rate: *rate}, tcp: *tcp, shoal: newPeers(dir, ""), turns: map[string]uint64{}}
		report := newReport("swarm", opts.runs)
		cases, err := b.cases(dir, report, sizes)
		if err != nil {
			return err
		}
		gib := func(z size) float64 { return float64(z) / (1 << 30) }
		report.groups = []group{
			{groupFile, "one file of " + sizes.one.String() + ", from one to one", "MB/s", gib(sizes.one), "CPU s/GiB"},
			{groupTree, fmt.Sprintf("%d files of 4 KiB, from one to one", sizes.files), "files/s", 1, "CPU s"},
			{groupMany, "one file of " + sizes.many.String() + ", received bytes of all together", "MB/s", gib(sizes.many), "CPU s/GiB"},
			{groupSeeders, fmt.Sprintf("the same file from seeders of %.0f Mbit/s each, %v away", fastRate/1e6, *delay/10), "MB/s", gib(sizes.many), "CPU s/GiB"},
			{groupWide, fmt.Sprintf("one file of %s across %v and %v %% loss each way, TCP %s", sizes.wide.String(), *delay, *loss*100, congestionControl(*tcp)), "kB/s", 1, "CPU s"},
			{groupMemory, "one sparse file of " + sizes.memory.String() + ", for the peaks of memory", "MB/s", gib(sizes.memory), "CPU s/GiB"},
			{groupSim, "the scheduler alone", "swarms/s", 1, "CPU s"},
		}
		return report.measure(ctx, opts, cases)
	})
}

// cases makes the data for what was asked and for what this machine can do.
func (b *swarmBench) cases(dir string, r *report, z swarmSizes) (cases []testcase, err error) {
	emulated := netem.Supported()
	if emulated != nil {
		progress("the emulated network is left out: %v", emulated)
	}
	if z.one > 0 || z.files > 0 {
		if b.one, err = newShareBench(filepath.Join(dir, "one"), int64(z.one), z.files, 4<<10); err != nil {
			return nil, err
		}
		b.one.shoal = b.shoal
		r.before = b.one.warm
		cases = append(cases, b.oneCases(z)...)
	}
	if z.many > 0 {
		if b.many, err = newShareBench(filepath.Join(dir, "many"), int64(z.many), 0, 0); err != nil {
			return nil, err
		}
		b.many.shoal = b.shoal
		if b.one == nil {
			r.before = b.many.warm
		}
		cases = append(cases, b.manyCases()...)
		if emulated == nil {
			cases = append(cases, b.seederCases()...)
		}
	}
	if z.wide > 0 && emulated == nil {
		if b.wide, err = newShareBench(filepath.Join(dir, "wide"), int64(z.wide), 0, 0); err != nil {
			return nil, err
		}
		cases = append(cases, b.wideCases()...)
	}
	if z.memory > 0 {
		c, err := memoryCase(dir, z.memory, b.shoal)
		if err != nil {
			return nil, err
		}
		cases = append(cases, c)
	}
	if z.seeds > 0 {
		cases = append(cases, b.simCases(z.seeds)...)
	}
	return cases, nil
}

// oneCases are the subjects of `bench share` with the floors that they are judged by.
func (b *swarmBench) oneCases(z swarmSizes) (cases []testcase) {
	wanted := map[string]bool{"tcp": z.one > 0, "get": z.one > 0, "packed": z.files > 0, "get-tree": z.files > 0}
	for _, c := range append(b.one.fileCases(), b.one.treeCases()...) {
		if wanted[c.name] {
			cases = append(cases, c)
		}
	}
	return cases
}

// congestionControl names what the emulated link's TCP uses: a rate under loss depends on little else.
func congestionControl(asked string) string {
	if asked != "" {
		return asked
	}
	own, err := os.ReadFile("/proc/sys/net/ipv4/tcp_congestion_control")
	if err != nil {
		return "of this machine"
	}
	return strings.TrimSpace(string(own))
}

// manyCases compares one seeder to several with the same file from one to one: the swarm's duty is to make the
// getters serve each other.
func (b *swarmBench) manyCases() []testcase {
	s := b.many
	megabytes := float64(s.size) / 1e6
	oneToOne := slices.DeleteFunc(s.fileCases(), func(c testcase) bool { return c.name != "tcp" && c.name != "get" })
	for i := range oneToOne {
		c := &oneToOne[i]
		c.group, c.name = groupMany, "many-"+c.name
		if c.floor != "" {
			c.floor = "many-" + c.floor
		}
	}
	return append(oneToOne, testcase{
		name: "four", group: groupMany, what: fmt.Sprintf("shoal get by %d at once", manyGetters), floor: "many-get",
		run: func(ctx context.Context) (sample, error) { return b.fourAtOnce(ctx, s.file, megabytes) },
	})
}

// fourAtOnce measures from the start of the first get to the end of the last, without the processes' own start.
func (b *swarmBench) fourAtOnce(ctx context.Context, path string, megabytes float64) (sample, error) {
	seeder, err := b.shoal.share(ctx, here, bothTransports, path)
	if err != nil {
		return sample{}, err
	}
	defer seeder.close()
	before := processCPU(seeder.pid())
	gets := make([]fetched, manyGetters)
	errs := make([]error, manyGetters)
	outs := make([]string, manyGetters)
	var wg sync.WaitGroup
	for i := range gets {
		out, done := b.many.output()
		defer done()
		get, err := b.shoal.prepareGet(ctx, here, bothTransports, seeder.link, out)
		if err != nil {
			return sample{}, err
		}
		outs[i] = out
		wg.Go(func() { gets[i], errs[i] = get() })
	}
	wg.Wait()
	for i, out := range outs { // not before all have ended: hashing would take processors from the others
		if errs[i] == nil {
			errs[i] = check(out, b.many.fileSum, fileSum)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return sample{}, err
	}
	out := sample{send: result{CPU: processCPU(seeder.pid()) - before, RSS: peakRSS(seeder.pid())}}
	for _, g := range gets {
		out.seconds, out.whole = max(out.seconds, g.elapsed), max(out.whole, g.seconds)
		out.recv.CPU += g.usage.CPU / manyGetters // so it is still seconds per GiB received
		out.recv.RSS = max(out.recv.RSS, g.usage.RSS)
	}
	out.rate = megabytes * manyGetters / out.seconds
	up, err := uploaded(ctx, seeder.home)
	if err == nil {
		out.note = fmt.Sprintf("the seeder uploaded %.2f times the file", float64(up)/1e6/megabytes)
	}
	return out, err
}

// uploaded asks a running peer what it has served in all.
func uploaded(ctx context.Context, home string) (n int64, err error) {
	c, err := client.Open(home)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	shares, err := c.Shares(ctx)
	for _, s := range shares {
		n += s.Uploaded
	}
	return n, err
}

// wideCases go from one host of an emulated network to another.
func (b *swarmBench) wideCases() []testcase {
	copying := func(name, what, transport string, quic bool) testcase {
		floor := "wide-tcp"
		if name == floor {
			floor = ""
		}
		return testcase{name: name, group: groupWide, what: what, floor: floor, run: func(ctx context.Context) (sample, error) {
			return b.across(name, func(from, to place) (sample, error) { return b.wideCopy(ctx, from, to, transport, quic) })
		}}
	}
	getting := func(name, what, transports string) testcase {
		return testcase{name: name, group: groupWide, what: what, floor: "wide-tcp", run: func(ctx context.Context) (sample, error) {
			return b.across(name, func(from, to place) (sample, error) { return b.wideGet(ctx, from, to, transports) })
		}}
	}
	return []testcase{
		copying("wide-tcp", "plain TCP, SHA-256, disk", "tcp", false),
		copying("wide-libp2p-tcp", "bare libp2p TCP+TLS", "p2p", false),
		copying("wide-libp2p-quic", "bare libp2p QUIC", "p2p", true),
		getting("wide-get-tcp", "shoal get, TCP only", onlyTCP),
		getting("wide-get-quic", "shoal get, QUIC only", onlyQUIC),
	}
}

// across makes a network for one measurement. In the same turn every case's link loses the same packets, counted from its first.
func (b *swarmBench) across(name string, run func(from, to place) (sample, error)) (sample, error) {
	b.turns[name]++
	n, err := netem.New(netem.Config{Hosts: 2, Link: b.link, TCP: b.tcp, Seed: b.turns[name]})
	if err != nil {
		return sample{}, err
	}
	defer n.Close()
	s, err := run(hostOf(n, 0), hostOf(n, 1))
	if st := n.Stats(0, 1); err == nil && st.Sent > 0 {
		s.note = fmt.Sprintf("%d packets, %.1f %% lost", st.Sent, float64(st.Lost+st.Dropped)/float64(st.Sent)*100)
	}
	return s, err
}

func (b *swarmBench) wideCopy(ctx context.Context, from, to place, transport string, quic bool) (sample, error) {
	out, done := b.wide.output()
	defer done()
	got, sent, err := pair(ctx, transport, to, from, roleArgs{Out: out, QUIC: quic}, roleArgs{Path: b.wide.file, QUIC: quic})
	if err != nil {
		return sample{}, err
	}
	if got.Sum != b.wide.fileSum {
		return sample{}, errors.New("what arrived is not what was sent")
	}
	return sample{rate: float64(got.Bytes) / 1e3 / got.Seconds, seconds: got.Seconds, send: sent, recv: got}, nil
}

func (b *swarmBench) wideGet(ctx context.Context, from, to place, transports string) (sample, error) {
	out, done := b.wide.output()
	defer done()
	seeder, err := b.shoal.share(ctx, from, transports, b.wide.file)
	if err != nil {
		return sample{}, err
	}
	defer seeder.close()
	before := processCPU(seeder.pid())
	g, err := b.shoal.get(ctx, to, transports, seeder.link, out)
	if err != nil {
		return sample{}, err
	}
	if err := check(out, b.wide.fileSum, fileSum); err != nil {
		return sample{}, err
	}
	sent := result{CPU: processCPU(seeder.pid()) - before, RSS: peakRSS(seeder.pid())}
	return sample{rate: float64(b.wide.size) / 1e3 / g.elapsed, seconds: g.elapsed, whole: g.seconds, send: sent, recv: g.usage}, nil
}
