// Package keep owns which pieces of the pool the jobs need: programs, inputs, outputs, pages of results. It reads them from the
// directory's records keep/<job>/<n>, so that every member knows them and no copy is needed to know, and tells storage/repair, which
// keeps two copies of each and collects none.
//
// A record's last part is the hash of what it lists, so that whoever writes the same list writes the same record, however often and
// whoever else does. The package refuses to know what the pieces are; when a job's time is over is its stewards' to say, by deleting
// the records.
package keep

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"iter"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/shoal-os/shoal/storage/block/piece"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/directory"
	"github.com/shoal-os/shoal/storage/repair/inventory"
	"github.com/shoal-os/shoal/storage/tree"
	"github.com/shoal-os/shoal/tasks/job"
	"github.com/shoal-os/shoal/tasks/keep/pb"
)

const (
	// Prefix begins the keys of all keep records.
	Prefix = "keep/"
	// Copies is how many copies of a piece the pool keeps for jobs.
	Copies = 2
	// ListMax is how many pieces one record lists: 33 bytes and a size each, within a value of 32 KiB.
	ListMax = 768
	// piecesMax bounds the pieces that are kept in mind; records beyond it are not heeded.
	piecesMax = 2 << 20
	// holdsMax bounds the pieces that are held at a time.
	holdsMax = 1 << 20
)

// Of is what the keys of a job's records begin with.
func Of(id job.ID) string { return Prefix + id.String() + "/" }

// Lists makes records of pieces, as few as are needed. The same pieces in the same order give the same records.
func Lists(id job.ID, pieces []piece.Piece) (out []directory.Change) {
	for part := range slices.Chunk(pieces, ListMax) {
		value := encode(part)
		sum := sha256.Sum256(value)
		out = append(out, directory.Change{Key: Of(id) + hex.EncodeToString(sum[:8]), Value: value})
	}
	return out
}

func encode(pieces []piece.Piece) []byte {
	m := &pb.List{}
	for _, p := range pieces {
		m.Pieces = inventory.Append(m.Pieces, p.ID)
		m.Sizes = append(m.Sizes, uint64(p.Size))
	}
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		panic(err) // it holds nothing that cannot be encoded
	}
	return raw
}

// Decode reads the value of a keep record.
func Decode(value []byte) ([]piece.Piece, error) {
	if len(value) > directory.ValueMax {
		return nil, fmt.Errorf("keep: a list of %d bytes", len(value))
	}
	var m pb.List
	if err := proto.Unmarshal(value, &m); err != nil {
		return nil, fmt.Errorf("keep: %w", err)
	}
	ids, err := inventory.Unpack(m.GetPieces(), ListMax)
	if err != nil || len(ids) != len(m.GetSizes()) {
		return nil, fmt.Errorf("keep: %d pieces and %d sizes: %v", len(ids), len(m.GetSizes()), err)
	}
	out := make([]piece.Piece, len(ids))
	for i, id := range ids {
		if n := m.Sizes[i]; n == 0 || n > piece.PieceMax {
			return nil, fmt.Errorf("keep: a piece of %d bytes", n)
		}
		out[i] = piece.Piece{ID: id, Size: int64(m.Sizes[i])}
	}
	return out, nil
}

// Records is the pool's directory; *directory.Directory is one.
type Records interface {
	Scan(prefix string) iter.Seq[*directory.Record]
	Watch(prefix string, f func(*directory.Record)) (stop func())
}

// Keeper knows what jobs need. All methods are safe for concurrent use.
type Keeper struct {
	mu       sync.Mutex
	lists    map[string][]piece.Piece // by key
	refs     map[chunk.CID]ref
	holds    map[chunk.CID]int
	touched  map[chunk.CID]bool // changed since the watchers were told
	watchers map[int]func([]tree.Want)
	next     int
	closed   bool
	heard    map[string]bool // keys that changed while Open reads the others; nil afterwards

	wake chan struct{} // capacity 1
	stop func()
	wg   sync.WaitGroup
	end  chan struct{}
}

// ref counts the lists that name a piece.
type ref struct {
	lists uint32
	size  uint32
}

// Open reads the records, and follows them until Close.
func Open(records Records) *Keeper {
	k := &Keeper{
		lists: map[string][]piece.Piece{}, refs: map[chunk.CID]ref{}, holds: map[chunk.CID]int{}, touched: map[chunk.CID]bool{},
		watchers: map[int]func([]tree.Want){}, wake: make(chan struct{}, 1), end: make(chan struct{}), heard: map[string]bool{},
	}
	k.stop = records.Watch(Prefix, func(r *directory.Record) { k.learn(r, true) })
	for r := range records.Scan(Prefix) {
		k.learn(r, false)
	}
	k.mu.Lock()
	k.heard = nil
	k.mu.Unlock()
	k.wg.Go(k.notify)
	return k
}

// Close ends the following.
func (k *Keeper) Close() error {
	k.mu.Lock()
	was := k.closed
	k.closed = true
	k.mu.Unlock()
	if !was {
		k.stop()
		close(k.end)
	}
	k.wg.Wait()
	return nil
}

// learn takes a record in, which is news or was found by Open. One that cannot be read keeps nothing.
func (k *Keeper) learn(r *directory.Record, news bool) {
	if !strings.HasPrefix(r.Key, Prefix) {
		return
	}
	var list []piece.Piece
	if !r.Deleted && len(r.Value) > 0 {
		list, _ = Decode(r.Value)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if !news && k.heard[r.Key] {
		return
	}
	if k.heard != nil {
		k.heard[r.Key] = true
	}
	for _, p := range k.lists[r.Key] {
		k.unref(p)
	}
	delete(k.lists, r.Key)
	if len(list) == 0 || len(k.refs)+len(list) > piecesMax {
		k.changed()
		return
	}
	k.lists[r.Key] = list
	for _, p := range list {
		n := k.refs[p.ID]
		k.refs[p.ID] = ref{n.lists + 1, max(n.size, uint32(min(p.Size, math.MaxUint32)))}
		k.touched[p.ID] = true
	}
	k.changed()
}

func (k *Keeper) unref(p piece.Piece) {
	n := k.refs[p.ID]
	if n.lists--; n.lists == 0 {
		delete(k.refs, p.ID)
	} else {
		k.refs[p.ID] = n
	}
	k.touched[p.ID] = true
}

// changed wakes notify. mu is held.
func (k *Keeper) changed() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// Hold keeps pieces from collection on this peer until release is called, or d is over; so does nobody else. Beyond a bound it does
// nothing.
func (k *Keeper) Hold(d time.Duration, pieces ...chunk.CID) (release func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.holds)+len(pieces) > holdsMax || len(pieces) == 0 {
		return func() {}
	}
	pieces = slices.Clone(pieces)
	for _, id := range pieces {
		k.holds[id]++
	}
	once := sync.OnceFunc(func() { k.release(pieces) })
	timer := time.AfterFunc(d, once)
	return func() { timer.Stop(); once() }
}

func (k *Keeper) release(pieces []chunk.CID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, id := range pieces {
		if k.holds[id]--; k.holds[id] <= 0 {
			delete(k.holds, id)
		}
	}
}

// Lists reports whether a record names a piece.
func (k *Keeper) Lists(id chunk.CID) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.refs[id].lists > 0
}

// Live returns a function that reports whether a piece must not be collected. It sees each change at once.
func (k *Keeper) Live() func(chunk.CID) bool {
	return func(id chunk.CID) bool {
		k.mu.Lock()
		defer k.mu.Unlock()
		return k.refs[id].lists > 0 || k.holds[id] > 0
	}
}

// Want says what is wanted of one piece; Copies is 0 if nothing is.
func (k *Keeper) Want(id chunk.CID) tree.Want {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.want(id)
}

func (k *Keeper) want(id chunk.CID) tree.Want {
	n, ok := k.refs[id]
	if !ok {
		return tree.Want{Piece: piece.Piece{ID: id}}
	}
	return tree.Want{Piece: piece.Piece{ID: id, Size: int64(n.size)}, Copies: Copies}
}

// Wants yields each piece that some job needs, as they are at one moment.
func (k *Keeper) Wants() iter.Seq[tree.Want] {
	return func(yield func(tree.Want) bool) {
		k.mu.Lock()
		all := make([]tree.Want, 0, len(k.refs))
		for id := range k.refs {
			all = append(all, k.want(id))
		}
		k.mu.Unlock()
		for _, w := range all {
			if !yield(w) {
				return
			}
		}
	}
}

// WatchWants has f called, from one goroutine, with the pieces of which something changed; Copies is 0 of those that are needed no
// more. One call may still be on its way when stop returns.
func (k *Keeper) WatchWants(f func([]tree.Want)) (stop func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.next++
	key := k.next
	k.watchers[key] = f
	return func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		delete(k.watchers, key)
	}
}

// notify runs the watchers.
func (k *Keeper) notify() {
	for {
		select {
		case <-k.wake:
		case <-k.end:
			return
		}
		var wants []tree.Want
		var tell []func([]tree.Want)
		k.mu.Lock()
		for id := range k.touched {
			wants = append(wants, k.want(id))
		}
		clear(k.touched)
		for _, f := range k.watchers {
			tell = append(tell, f)
		}
		k.mu.Unlock()
		if len(wants) == 0 {
			continue
		}
		for _, f := range tell {
			f(wants)
		}
	}
}
