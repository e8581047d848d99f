package tree

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/storage/block/piece"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/directory"
	"github.com/shoal-os/shoal/storage/directory/names"
)

// birth is when the tests' pools begin.
var birth = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// errDead is what everything returns once the power is gone.
var errDead = errors.New("the power is gone")

// power fails after some steps. A nil one never does.
type power struct {
	mu   sync.Mutex
	left int
	dead bool
}

// step reports whether there is still power for one.
func (p *power) step() error {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.left == 0 {
		p.dead = true
	}
	p.left--
	if p.dead {
		return errDead
	}
	return nil
}

// fakeNames is a directory in memory.
type fakeNames struct {
	self  peer.ID
	power *power

	mu       sync.Mutex
	records  map[string]*directory.Record
	clock    names.HLC
	now      time.Time
	watchers map[int]func(*directory.Record)
	next     int
	writes   int
	onWrite  func() // called before each
}

func newFakeNames(self peer.ID) *fakeNames {
	return &fakeNames{
		self: self, records: map[string]*directory.Record{}, watchers: map[int]func(*directory.Record){}, now: birth,
	}
}

func (f *fakeNames) time() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.now
}

// pass lets time go by.
func (f *fakeNames) pass(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now = f.now.Add(d)
}

// Write implements Names. Each change is a step.
func (f *fakeNames) Write(ctx context.Context, changes ...directory.Change) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if f.onWrite != nil {
		f.onWrite()
	}
	for _, c := range changes {
		if err := f.power.step(); err != nil {
			return err
		}
		if err := names.CheckKey(c.Key); err != nil || len(c.Value) > directory.ValueMax {
			return fmt.Errorf("key %q with %d bytes: %v", c.Key, len(c.Value), err)
		}
		f.mu.Lock()
		f.writes++
		f.clock = max(f.clock+1, names.At(f.now))
		r := &directory.Record{Key: c.Key, Value: bytes.Clone(c.Value), Time: f.clock, Author: f.self, Deleted: c.Delete}
		f.mu.Unlock()
		f.take(r)
	}
	return f.power.step() // durable, and the power fails before anybody hears of it
}

// take takes a record in if it wins. A real directory tells its watchers of what was written here as well, but nobody
// knows when: here it never does.
func (f *fakeNames) take(r *directory.Record) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	old := f.records[r.Key]
	if old != nil && !r.Beats(old) || old == nil && r.Deleted && r.Author == f.self {
		return false
	}
	f.records[r.Key] = r
	f.clock = max(f.clock, r.Time)
	return true
}

// merge is take for a record of another peer.
func (f *fakeNames) merge(r *directory.Record) {
	if !f.take(r) {
		return
	}
	f.mu.Lock()
	list := slices.Collect(maps.Values(f.watchers))
	f.mu.Unlock()
	for _, fn := range list {
		fn(r)
	}
}

// drop removes a record without a trace.
func (f *fakeNames) drop(key string) {
	f.mu.Lock()
	delete(f.records, key)
	list := slices.Collect(maps.Values(f.watchers))
	f.mu.Unlock()
	for _, fn := range list {
		fn(&directory.Record{Key: key, Deleted: true})
	}
}

// Get implements Names.
func (f *fakeNames) Get(key string) (*directory.Record, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.records[key]
	return r, r != nil && !r.Deleted
}

// Scan implements Names.
func (f *fakeNames) Scan(prefix string) iter.Seq[*directory.Record] {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []*directory.Record
	for _, key := range slices.Sorted(maps.Keys(f.records)) {
		if r := f.records[key]; strings.HasPrefix(key, prefix) && !r.Deleted {
			out = append(out, r)
		}
	}
	return slices.Values(out)
}

// Watch implements Names.
func (f *fakeNames) Watch(prefix string, fn func(*directory.Record)) func() {
	f.mu.Lock()
	defer f.mu.Unlock()
	id := f.next
	f.next++
	f.watchers[id] = func(r *directory.Record) {
		if strings.HasPrefix(r.Key, prefix) {
			fn(r)
		}
	}
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.watchers, id)
	}
}

// live counts the records with a value.
func (f *fakeNames) live() (n int) {
	for range f.Scan("") {
		n++
	}
	return n
}

// meet has two peers exchange what they have.
func meet(a, b *fakeNames) {
	for _, way := range [][2]*fakeNames{{a, b}, {b, a}} {
		way[0].mu.Lock()
		list := slices.Collect(maps.Values(way[0].records))
		way[0].mu.Unlock()
		for _, r := range list {
			way[1].merge(r)
		}
	}
}

// fakeBytes holds whole files in memory.
type fakeBytes struct {
	power *power

	mu      sync.Mutex
	durable map[chunk.CID][]byte
	copies  int // that Secure reaches
	secured int // pieces
	batches int // open
	most    int // bytes that were in one batch
	holding chan struct{}
	fail    error // of Add
	held    func(pieces []piece.Piece)
}

func newFakeBytes() *fakeBytes { return &fakeBytes{durable: map[chunk.CID][]byte{}, copies: 2} }

type fakeBatch struct {
	bytes *fakeBytes
	added map[chunk.CID][]byte
	size  int
}

// NewBatch implements Bytes.
func (f *fakeBytes) NewBatch() Batch {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.batches++
	return &fakeBatch{bytes: f, added: map[chunk.CID][]byte{}}
}

// Add implements Batch.
func (b *fakeBatch) Add(ctx context.Context, r io.Reader) (piece.File, error) {
	data, err := io.ReadAll(r)
	if err != nil {
		return piece.File{}, err
	}
	if err := errors.Join(ctx.Err(), b.bytes.fail, b.bytes.power.step()); err != nil {
		return piece.File{}, err
	}
	f := piece.File{Root: rootOf(data), Size: int64(len(data))}
	if len(data) > 0 {
		f.Pieces = []piece.Piece{{ID: f.Root, Size: f.Size}}
		b.added[f.Root] = data
	}
	b.size += len(data)
	return f, nil
}

// rootOf names bytes well enough: the codec is right.
func rootOf(data []byte) chunk.CID {
	if len(data) > piece.SmallMax {
		return chunk.SumNode(data)
	}
	return chunk.SumRaw(data)
}

// Commit implements Batch.
func (b *fakeBatch) Commit() error {
	if err := b.bytes.power.step(); err != nil {
		return err
	}
	b.bytes.mu.Lock()
	defer b.bytes.mu.Unlock()
	b.bytes.most = max(b.bytes.most, b.size)
	maps.Copy(b.bytes.durable, b.added)
	return nil
}

// Close implements Batch.
func (b *fakeBatch) Close() {
	b.bytes.mu.Lock()
	defer b.bytes.mu.Unlock()
	b.bytes.batches--
}

type fakeReader struct{ *bytes.Reader }

func (fakeReader) Close() error { return nil }

// Open implements Bytes.
func (f *fakeBytes) Open(_ context.Context, file piece.File) (Reader, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	data, ok := f.durable[file.Root]
	if !ok {
		return nil, errors.New("nobody has it")
	}
	return fakeReader{bytes.NewReader(data)}, nil
}

// Safety implements Bytes.
func (f *fakeBytes) Safety([]piece.Piece, int) Safety { return Safety{} }

// Secure implements Bytes.
func (f *fakeBytes) Secure(ctx context.Context, pieces []piece.Piece, _, ack int, _ func(int, int)) (Secured, error) {
	if f.holding != nil {
		select {
		case <-f.holding:
		case <-ctx.Done():
			return Secured{}, ctx.Err()
		}
	}
	if f.held != nil {
		f.held(pieces)
	}
	if err := errors.Join(ctx.Err(), f.power.step()); err != nil {
		return Secured{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.secured += len(pieces)
	return Secured{min(f.copies, ack)}, nil
}

// collect drops what nothing names, and returns the roots that went.
func (f *fakeBytes) collect(live func(chunk.CID) bool) (gone int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id := range f.durable {
		if !live(id) {
			delete(f.durable, id)
			gone++
		}
	}
	return gone
}

// bench is one peer of a test.
type bench struct {
	*Tree
	t     testing.TB
	names *fakeNames
	bytes *fakeBytes
}

// newBench makes a peer with an empty tree.
func newBench(t testing.TB, name string) *bench {
	return openBench(t, newFakeNames(peer.ID("peer "+name)), newFakeBytes())
}

func openBench(t testing.TB, n *fakeNames, b *fakeBytes) *bench {
	t.Helper()
	x, err := Open(Config{Self: n.self, Name: strings.TrimPrefix(string(n.self), "peer "), Names: n, Bytes: b, Now: n.time})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = x.Close() })
	return &bench{x, t, n, b}
}

// ok fails the test on an error.
func (b *bench) ok(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// want fails the test if err is not the kind.
func (b *bench) want(err, kind error) {
	b.t.Helper()
	if !errors.Is(err, kind) {
		b.t.Errorf("the error is %v, want %v", err, kind)
	}
}

// put puts one file.
func (b *bench) put(path, text string) error {
	p := b.NewPut(PutOptions{})
	defer p.Abort()
	if err := p.File(context.Background(), path, 0o644, b.names.time(), strings.NewReader(text)); err != nil {
		return err
	}
	_, err := p.Commit(context.Background())
	return err
}

// cat reads one file.
func (b *bench) cat(path string) (string, error) {
	f, err := b.OpenRead(context.Background(), path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	data, err := io.ReadAll(f)
	return string(data), err
}

// show lists all files with their contents, and folders with a slash.
func (b *bench) show() map[string]string {
	b.t.Helper()
	out := map[string]string{}
	for e, err := range b.Walk("/") {
		b.ok(err)
		switch {
		case e.Path == "/":
		case e.IsFolder():
			out[e.Path+"/"] = ""
		default:
			text, err := b.cat(e.Path)
			b.ok(err)
			out[e.Path] = text
		}
	}
	return out
}

// shows fails the test if something else can be seen.
func (b *bench) shows(want map[string]string) {
	b.t.Helper()
	if got := b.show(); !maps.Equal(got, want) {
		b.t.Errorf("shown is %v, want %v", got, want)
	}
}
