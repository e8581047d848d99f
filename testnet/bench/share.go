package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// The groups of the share bench: each has a table of its own, in its own unit.
const (
	groupFile = "file"
	groupTree = "tree"
)

// shareBench is one run of `bench share`: its data and what it measures.
type shareBench struct {
	file, fileSum string
	tree, treeSum string
	size          int64
	files         int
	shoal         *peers
	scratch       string // holds what receivers write
}

func runShare(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("bench share", flag.ContinueOnError)
	bytes, fileSize, files := size(1<<30), size(4<<10), 10000
	fs.Var(&bytes, "size", "size of the large file; 0 leaves it out")
	fs.IntVar(&files, "files", files, "number of small files; 0 leaves them out")
	fs.Var(&fileSize, "file-size", "size of each small file")
	opts := addRunFlags(fs, 3)
	profile := fs.String("profile", "", "write processor profiles of the shoal peers, run inside this program, into this folder")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 || opts.runs < 1 || files < 0 || fileSize > packSizeMax {
		return errors.New("share: bad arguments; see share --help")
	}
	if *profile != "" {
		if err := os.MkdirAll(*profile, 0o755); err != nil {
			return err
		}
	}
	return inTemporaryFolder(func(dir string) error {
		b, err := newShareBench(dir, int64(bytes), files, int64(fileSize))
		if err != nil {
			return err
		}
		b.shoal = newPeers(dir, *profile)
		report := newReport("share", opts.runs)
		report.before = b.warm
		report.groups = []group{
			{groupFile, fmt.Sprintf("one file of %s", bytes.String()), "MB/s", float64(bytes) / (1 << 30), "CPU s/GiB"},
			{groupTree, fmt.Sprintf("%d files of %s", files, fileSize.String()), "files/s", 1, "CPU s"},
		}
		var cases []testcase
		if bytes > 0 {
			cases = append(cases, b.fileCases()...)
		}
		if files > 0 {
			cases = append(cases, b.treeCases()...)
		}
		return report.measure(ctx, opts, cases)
	})
}

func newShareBench(dir string, size int64, files int, fileSize int64) (*shareBench, error) {
	b := &shareBench{
		file: filepath.Join(dir, "large.bin"), tree: filepath.Join(dir, "small-"+rand.Text()), scratch: filepath.Join(dir, "out"),
		size: size, files: files,
	}
	progress("making data: %d MB and %d small files", size/1e6, files)
	err := os.MkdirAll(b.scratch, 0o755)
	if err != nil {
		return nil, err
	}
	spreadFolders(dir)
	spreadFolders(b.scratch)
	if b.fileSum, err = makeFile(b.file, size, 1); err != nil {
		return nil, err
	}
	b.treeSum, err = makeTree(b.tree, files, fileSize, 2)
	return b, err
}

func (b *shareBench) fileCases() []testcase {
	return []testcase{
		{name: "hash", group: groupFile, what: "SHA-256 of 1 MiB chunks, all cores",
			run: func(ctx context.Context) (sample, error) {
				r, err := alone(ctx, "hash-file", roleArgs{Path: b.file})
				return sample{rate: float64(b.size) / 1e6 / r.Seconds, seconds: r.Seconds, send: r}, err
			}},
		{name: "import", group: groupFile, what: "shoal share", floor: "hash",
			run: func(ctx context.Context) (sample, error) { return b.importing(ctx, b.file, float64(b.size)/1e6) }},
		{name: "tcp", group: groupFile, what: "plain TCP, SHA-256, disk",
			run: func(ctx context.Context) (sample, error) { return b.copying(ctx, "tcp", roleArgs{}) }},
		{name: "libp2p", group: groupFile, what: "bare libp2p TCP+TLS, SHA-256, disk", floor: "tcp",
			run: func(ctx context.Context) (sample, error) { return b.copying(ctx, "p2p", roleArgs{}) }},
		{name: "get", group: groupFile, what: "shoal get", floor: "tcp",
			run: func(ctx context.Context) (sample, error) {
				return b.getting(ctx, b.file, float64(b.size)/1e6, b.fileSum, fileSum)
			}},
		{name: "get-sealed", group: groupFile, what: "shoal get, encrypted as on a LAN", floor: "tcp",
			run: func(ctx context.Context) (sample, error) {
				b.shoal.sealAll = true
				defer func() { b.shoal.sealAll = false }()
				return b.getting(ctx, b.file, float64(b.size)/1e6, b.fileSum, fileSum)
			}},
	}
}

func (b *shareBench) treeCases() []testcase {
	return []testcase{
		{name: "hash-tree", group: groupTree, what: "read and SHA-256, all cores",
			run: func(ctx context.Context) (sample, error) {
				r, err := alone(ctx, "hash-tree", roleArgs{Path: b.tree})
				return sample{rate: float64(b.files) / r.Seconds, seconds: r.Seconds, send: r}, err
			}},
		{name: "import-tree", group: groupTree, what: "shoal share", floor: "hash-tree",
			run: func(ctx context.Context) (sample, error) { return b.importing(ctx, b.tree, float64(b.files)) }},
		{name: "packed", group: groupTree, what: "packed over plain TCP, SHA-256, disk",
			run: b.packing},
		{name: "get-tree", group: groupTree, what: "shoal get", floor: "packed",
			run: func(ctx context.Context) (sample, error) {
				return b.getting(ctx, b.tree, float64(b.files), b.treeSum, treeSum)
			}},
	}
}

// copying measures a floor that copies the large file between two processes of this machine.
func (b *shareBench) copying(ctx context.Context, transport string, recv roleArgs) (sample, error) {
	out, done := b.output()
	defer done()
	recv.Out = out
	got, sent, err := pair(ctx, transport, here, here, recv, roleArgs{Path: b.file, QUIC: recv.QUIC})
	if err != nil {
		return sample{}, err
	}
	if got.Sum != b.fileSum {
		return sample{}, errors.New("what arrived is not what was sent")
	}
	return sample{rate: float64(got.Bytes) / 1e6 / got.Seconds, seconds: got.Seconds, send: sent, recv: got}, nil
}

func (b *shareBench) packing(ctx context.Context) (sample, error) {
	out, done := b.output()
	defer done()
	got, sent, err := pair(ctx, "pack", here, here, roleArgs{Out: out}, roleArgs{Path: b.tree})
	if err != nil {
		return sample{}, err
	}
	if err := check(out, b.treeSum, treeSum); err != nil {
		return sample{}, err
	}
	return sample{rate: float64(got.Files) / got.Seconds, seconds: got.Seconds, send: sent, recv: got}, nil
}

// importing measures an import without its process's start, and beside it the whole command up to its link.
func (b *shareBench) importing(ctx context.Context, path string, amount float64) (sample, error) {
	r, err := b.shoal.importing(ctx, path)
	if err != nil {
		return sample{}, err
	}
	s, err := b.shoal.share(ctx, here, bothTransports, path)
	if err != nil {
		return sample{}, err
	}
	s.close()
	return sample{rate: amount / r.Seconds, seconds: r.Seconds, whole: s.seconds, send: r}, nil
}

// getting measures a get from a peer that has already imported: the rate by the time that get itself reports, the
// whole command's time beside it.
func (b *shareBench) getting(ctx context.Context, path string, amount float64, sum string, digest func(string) (string, error)) (sample, error) {
	out, done := b.output()
	defer done()
	if b.shoal.profile != "" {
		got, sent, err := b.shoal.profiled(ctx, path, out)
		return sample{rate: amount / got.Seconds, seconds: got.Seconds, send: sent, recv: got}, err
	}
	seeder, err := b.shoal.share(ctx, here, bothTransports, path)
	if err != nil {
		return sample{}, err
	}
	defer seeder.close()
	if err := b.warm(); err != nil { // again: the import took as long as the host takes to have idle memory back
		return sample{}, err
	}
	before := processCPU(seeder.pid())
	g, err := b.shoal.get(ctx, here, bothTransports, seeder.link, out)
	if err != nil {
		return sample{}, err
	}
	sent := result{CPU: processCPU(seeder.pid()) - before, RSS: peakRSS(seeder.pid())}
	if err := check(out, sum, digest); err != nil {
		return sample{}, err
	}
	return sample{rate: amount / g.elapsed, seconds: g.elapsed, whole: g.seconds, send: sent, recv: g.usage}, nil
}

// warm writes as much as a run will and deletes it again. On a virtual machine, memory that has long been idle belongs to the
// host and comes back page by page: without this, whoever runs first after a pause pays for it (twice the time, as measured).
func (b *shareBench) warm() error {
	path := filepath.Join(b.scratch, "warm")
	if _, err := makeFile(path, b.size, 3); err != nil {
		return err
	}
	return os.Remove(path)
}

// output returns a new path for a receiver to write to, and what tidies it up after the measurement. A received tree
// stays until the end: ext4 avoids inodes freed in the last minutes and searches past each of them, so that ten thousand
// files just deleted would make the next ten thousand slow to create, tenfold as measured. The name is random because it
// decides in which part of the disk the file system begins to look (spreadFolders).
func (b *shareBench) output() (path string, done func()) {
	path = filepath.Join(b.scratch, "received-"+rand.Text())
	return path, func() {
		if info, err := os.Stat(path); err == nil && !info.IsDir() {
			os.Remove(path)
		}
	}
}

func check(path, want string, digest func(string) (string, error)) error {
	got, err := digest(path)
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("%s is not what was sent", filepath.Base(path))
	}
	return nil
}

// inTemporaryFolder calls do with a new folder and removes it, whatever happens.
func inTemporaryFolder(do func(dir string) error) error {
	dir, err := os.MkdirTemp("", "shoal-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	return do(dir)
}

func progress(format string, args ...any) {
	fmt.Fprintln(os.Stderr, strings.TrimSpace(fmt.Sprintf(format, args...)))
}
