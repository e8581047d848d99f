package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	groupMove    = "move"
	groupSmall   = "small"
	groupList    = "list"
	groupSurvive = "survive"

	crewPatience = 5 * time.Second // of the peers that survive
	listed       = 100_000         // entries of the folder that is listed
	mixedFiles   = 400             // small files of the mixed data
	mixedLarge   = 6               // large ones
)

// filesBench measures a pool's files over real processes: three that keep copies, and one that keeps none and reads.
type filesBench struct {
	*shareBench
	pool   *crew
	puts   int
	listed bool
}

func runFiles(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("bench files", flag.ContinueOnError)
	bytes, files := size(256<<20), 5000
	fs.Var(&bytes, "size", "size of the large file")
	fs.IntVar(&files, "files", files, "number of small files, of 4 KiB each")
	mixed := size(1 << 30)
	fs.Var(&mixed, "mixed", "bytes that have to survive the loss of two peers of five")
	opts := addRunFlags(fs, 1)
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 || opts.runs < 1 || bytes < 1 || files < 1 {
		return errors.New("files: bad arguments; see files --help")
	}
	return inTemporaryFolder(func(dir string) error {
		base, err := newShareBench(dir, int64(bytes), files, 4<<10)
		if err != nil {
			return err
		}
		base.shoal = newPeers(dir, "")
		b := &filesBench{shareBench: base}
		defer func() {
			if b.pool != nil {
				b.pool.close()
			}
		}()
		report := newReport("files", opts.runs)
		report.groups = []group{
			{groupMove, fmt.Sprintf("one file of %s; a put makes three durable copies of it", bytes.String()), "MB/s", float64(bytes) / (1 << 30), "CPU s/GiB"},
			{groupSmall, fmt.Sprintf("%d files of 4 KiB", files), "files/s", 1, "CPU s"},
			{groupList, fmt.Sprintf("a folder of %d entries; shoal ls may take 200 ms", listed), "entries/s", 1, "CPU s"},
			{groupSurvive, fmt.Sprintf("%s of mixed files, three copies on five peers, two of them killed; patience %v", mixed.String(), crewPatience), "MB/s", 1, "CPU s"},
		}
		return report.measure(ctx, opts, append(b.cases(), testcase{
			name: "survive", group: groupSurvive, what: "until there are three copies of everything again",
			run: func(ctx context.Context) (sample, error) { return b.survive(ctx, int64(mixed)) },
		}))
	})
}

func (b *filesBench) cases() []testcase {
	large, small := float64(b.size)/1e6, float64(b.files)
	return []testcase{
		{name: "get", group: groupMove, what: "shoal get of a share, one to one",
			run: func(ctx context.Context) (sample, error) { return b.getting(ctx, b.file, large, b.fileSum, fileSum) }},
		{name: "put", group: groupMove, what: "shoal put, until two copies are durable", floor: "get",
			run: func(ctx context.Context) (sample, error) { return b.put(ctx, b.file, large) }},
		{name: "read", group: groupMove, what: "shoal get /PATH where no copy is kept", floor: "get",
			run: func(ctx context.Context) (sample, error) { return b.read(ctx, b.file, large, b.fileSum, fileSum) }},
		{name: "get-small", group: groupSmall, what: "shoal get of a share, one to one",
			run: func(ctx context.Context) (sample, error) { return b.getting(ctx, b.tree, small, b.treeSum, treeSum) }},
		{name: "put-small", group: groupSmall, what: "shoal put, until two copies are durable", floor: "get-small",
			run: func(ctx context.Context) (sample, error) { return b.put(ctx, b.tree, small) }},
		{name: "read-small", group: groupSmall, what: "shoal get /PATH where no copy is kept", floor: "get-small",
			run: func(ctx context.Context) (sample, error) { return b.read(ctx, b.tree, small, b.treeSum, treeSum) }},
		{name: "ls", group: groupList, what: "shoal ls, the whole command", run: b.list},
	}
}

// ready makes the pool, once.
func (b *filesBench) ready(ctx context.Context) error {
	if b.pool != nil {
		return nil
	}
	keep := []string{"--store", "20GiB"}
	pool, err := newCrew(ctx, b.shoal, keep, keep, keep, []string{"--store", lendsNothing})
	if err != nil {
		pool.close()
		return err
	}
	b.pool = pool
	return nil
}

func (b *filesBench) writer() *mate { return b.pool.mates[0] }
func (b *filesBench) reader() *mate { return b.pool.mates[3] }

// at is where the newest put of some data is in the pool.
func (b *filesBench) at(data string) string {
	return fmt.Sprintf("/put-%d-%s", b.puts, filepath.Base(data))
}

func (b *filesBench) put(ctx context.Context, data string, amount float64) (sample, error) {
	if err := b.ready(ctx); err != nil {
		return sample{}, err
	}
	b.puts++
	before := b.crewCPU()
	out, whole, err := b.pool.timed(ctx, b.writer(), "put", data, b.at(data), "--json")
	if err != nil {
		return sample{}, err
	}
	t, err := transferOf(out)
	if err == nil && t.Copies < 2 {
		err = fmt.Errorf("only %d copies", t.Copies)
	}
	if err != nil {
		return sample{}, err
	}
	pid := b.writer().cmd.Process.Pid
	s := sample{rate: amount / t.Elapsed, seconds: t.Elapsed, whole: whole, send: result{CPU: b.crewCPU() - before, RSS: peakRSS(pid)}}
	third := time.Now()
	err = await(ctx, "the third copy", func() bool {
		space, err := b.writer().space(ctx)
		return err == nil && inClass(space, "safe") == space.Size
	})
	s.note = fmt.Sprintf("third copies %.1f s later", time.Since(third).Seconds())
	return s, err
}

// read fetches the newest put where nothing of it is, and empties nothing: each put has names of its own, and the
// cache keeps no more than what was read lately.
func (b *filesBench) read(ctx context.Context, data string, amount float64, sum string, digest func(string) (string, error)) (sample, error) {
	if b.pool == nil {
		return sample{}, errors.New("nothing was put yet: measure the puts too")
	}
	if err := b.named(ctx); err != nil {
		return sample{}, err
	}
	out, done := b.output()
	defer done()
	before := b.crewCPU()
	text, whole, err := b.pool.timed(ctx, b.reader(), "get", b.at(data), "-o", out, "--json")
	if err != nil {
		return sample{}, err
	}
	t, err := transferOf(text)
	if err != nil {
		return sample{}, err
	}
	if err := check(out, sum, digest); err != nil {
		return sample{}, err
	}
	pid := b.reader().cmd.Process.Pid
	return sample{rate: amount / t.Elapsed, seconds: t.Elapsed, whole: whole, recv: result{CPU: b.crewCPU() - before, RSS: peakRSS(pid)}}, nil
}

// named waits until the reader knows all names that the writer has written.
func (b *filesBench) named(ctx context.Context) error {
	want, err := b.writer().space(ctx)
	if err != nil {
		return err
	}
	return await(ctx, "the names", func() bool {
		got, err := b.reader().space(ctx)
		return err == nil && got.Files == want.Files
	})
}

// crewCPU is what all processes of the pool have used, in seconds.
func (b *filesBench) crewCPU() (sum float64) {
	for _, m := range b.pool.mates {
		if m.cmd != nil {
			sum += processCPU(m.cmd.Process.Pid)
		}
	}
	return sum
}

// list measures the listing of one large folder.
func (b *filesBench) list(ctx context.Context) (sample, error) {
	if err := b.ready(ctx); err != nil {
		return sample{}, err
	}
	if !b.listed {
		dir := filepath.Join(b.scratch, "entries")
		if err := os.Mkdir(dir, 0o755); err != nil {
			return sample{}, err
		}
		for i := range listed {
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("entry-%06d", i)), nil, 0o644); err != nil {
				return sample{}, err
			}
		}
		if _, err := b.pool.run(ctx, b.writer(), "put", dir, "/entries"); err != nil {
			return sample{}, err
		}
		b.listed = true
	}
	best := 0.0
	for range 5 {
		out, seconds, err := b.pool.timed(ctx, b.writer(), "ls", "/entries")
		if err != nil {
			return sample{}, err
		}
		if n := strings.Count(out, "\n"); n != listed {
			return sample{}, fmt.Errorf("ls printed %d lines", n)
		}
		if best == 0 || seconds < best {
			best = seconds
		}
	}
	return sample{rate: listed / best, seconds: best, send: result{RSS: peakRSS(b.writer().cmd.Process.Pid)}, note: fmt.Sprintf("best of 5: %.0f ms", best*1e3)}, nil
}

// survive puts mixed data on one of five peers, kills two others, reads everything at once, and waits for three copies.
func (b *filesBench) survive(ctx context.Context, bytes int64) (sample, error) {
	data, sum, err := b.mixed(bytes)
	if err != nil {
		return sample{}, err
	}
	keep := []string{"--store", "20GiB", "--patience", crewPatience.String()}
	c, err := newCrew(ctx, b.shoal, keep, keep, keep, keep, keep)
	defer c.close()
	if err != nil {
		return sample{}, err
	}
	if _, err := c.run(ctx, c.mates[0], "put", data, "/mixed"); err != nil {
		return sample{}, err
	}
	whole := func(m *mate) func() bool {
		return func() bool {
			s, err := m.space(ctx)
			return err == nil && s.Files == mixedFiles+mixedLarge && inClass(s, "safe") == s.Size && heldBy(s, c.mates) >= 3*s.Size
		}
	}
	if err := await(ctx, "three copies", whole(c.mates[0])); err != nil {
		return sample{}, err
	}
	// What the writer knows the others may hear later, in a pool that came to be a second ago: who is asked below must know the names.
	left := c.mates[:3]
	put := time.Now()
	for _, m := range left {
		if err := await(ctx, "the names at "+m.name, whole(m)); err != nil {
			return sample{}, err
		}
	}
	heard := time.Since(put).Seconds()
	before, err := b.moved(ctx, left)
	if err != nil {
		return sample{}, err
	}
	s, err := c.mates[0].space(ctx)
	if err != nil {
		return sample{}, err
	}
	var lost int64
	for _, i := range []int{3, 4} {
		for _, m := range s.Members {
			if m.Name == c.mates[i].name {
				lost += m.Held
			}
		}
		c.kill(c.mates[i])
	}
	killed := time.Now()
	out, done := b.output()
	defer done()
	if _, err := c.run(ctx, c.mates[1], "get", "/mixed", "-o", out); err != nil {
		return sample{}, fmt.Errorf("after two were killed: %w", err)
	}
	if err := check(out, sum, treeSum); err != nil {
		return sample{}, err
	}
	readBack := time.Since(killed).Seconds()
	if err := await(ctx, "three copies again", func() bool {
		for _, m := range left {
			if !whole(m)() {
				return false
			}
		}
		return true
	}); err != nil {
		return sample{}, err
	}
	seconds := time.Since(killed).Seconds()
	after, err := b.moved(ctx, left)
	if err != nil {
		return sample{}, err
	}
	return sample{rate: float64(after-before) / 1e6 / seconds, seconds: seconds,
		note: fmt.Sprintf("all had the names %.1f s after the writer saw three copies; read back whole %.1f s after the kill; moved %.2f of the %.0f MB lost", heard, readBack, float64(after-before)/float64(lost), float64(lost)/1e6)}, nil
}

// moved is what peers have fetched to mend copies.
func (b *filesBench) moved(ctx context.Context, mates []*mate) (sum int64, err error) {
	for _, m := range mates {
		s, err := m.space(ctx)
		if err != nil {
			return 0, err
		}
		sum += s.Repair.Bytes
	}
	return sum, nil
}

// mixed makes data of small and large files, of so many bytes in all, and returns its digest.
func (b *filesBench) mixed(bytes int64) (dir, sum string, err error) {
	dir = filepath.Join(b.scratch, "mixed")
	os.RemoveAll(dir)
	if _, err = makeTree(dir, mixedFiles, 64<<10, 7); err != nil {
		return "", "", err
	}
	rest := bytes - mixedFiles*64<<10
	for i := range int64(mixedLarge) {
		if _, err = makeFile(filepath.Join(dir, fmt.Sprintf("large-%d.bin", i)), max(rest/mixedLarge, 1), uint64(100+i)); err != nil {
			return "", "", err
		}
	}
	sum, err = treeSum(dir)
	return dir, sum, err
}
