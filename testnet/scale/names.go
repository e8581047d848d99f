package scale

import (
	"crypto/ed25519"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/storage/directory/names"
)

const (
	namesEach = 100 // names that each member keeps in the directory
	nameValue = 100 // bytes of one's value
	differ    = 10  // records that differ between two that compare
)

// unsigned signs with nothing: what is asked here never looks at signatures.
type unsigned struct{}

func (unsigned) Sign([]byte) ([]byte, error) { return make([]byte, ed25519.SignatureSize), nil }

// directories fills the product's set of names and has two of them compare.
func directories(c Config) (Section, error) {
	t := Table{Name: "names", Columns: []string{"records", "memory of a record", "memory of all, at each member", "disk of all",
		fmt.Sprintf("comparison when %d differ", differ), "messages of it", "CPU of it, both sides", "a newcomer is sent"}}
	memory := Series{Name: fmt.Sprintf("%d names a member", namesEach), Basis: OfCode}
	compare := Series{Name: fmt.Sprintf("%d records differ", differ), Basis: OfCode}
	naive := Series{Name: "all hashes", Basis: OfModel}
	for _, n := range c.Sizes {
		records := n * namesEach
		if records > names.RecordsMax {
			t.Rows = append(t.Rows, Row{N: n, Basis: OfCode, Cells: []string{count(float64(records)), "excluded", "excluded", "excluded", "excluded", "excluded", "excluded", "excluded"}})
			continue
		}
		m, err := c.fillNames(c.rng("names", n), records)
		if err != nil {
			return Section{}, err
		}
		t.Rows = append(t.Rows, Row{N: n, Basis: OfCode, Cells: []string{count(float64(records)), size(m.memory), size(m.memory * float64(records)), size(m.disk),
			size(m.bytes), count(m.turns), span(m.took), size(m.disk)}})
		memory.add(n, m.memory*float64(records))
		c.note("names", n, m.memory*float64(records))
		compare.add(n, m.bytes)
		naive.add(n, 32*float64(records))
	}
	return Section{Tables: []Table{t}, Plots: []Plot{
		{"names-memory", "The names, at each member", "members", "bytes of memory", []Series{memory}},
		{"names-compare", "Two members compare their names", "members", "bytes, both directions", []Series{compare, naive}},
	}}, nil
}

type namesCost struct {
	memory, disk float64 // bytes of a record, of all
	bytes, turns float64 // of a comparison
	took         time.Duration
}

func (c Config) fillNames(rng *rand.Rand, records int) (m namesCost, err error) {
	_, author := keyOf(1)
	before := inUse()
	a := names.NewSet()
	for i := range records {
		r, err := randomName(rng, author, fmt.Sprintf("file/home/user%05d/document-%07d", i/namesEach, i))
		if err != nil {
			return m, err
		}
		a.Put(r)
	}
	m.memory = float64(inUse()-before) / float64(records)
	m.disk = float64(a.Bytes())
	b := names.NewSet()
	for r := range a.All() {
		b.Put(r)
	}
	for i := range differ {
		r, err := randomName(rng, author, fmt.Sprintf("extra/%d", i))
		if err != nil {
			return m, err
		}
		[]*names.Set{a, b}[i%2].Put(r)
	}
	began := c.CPU()
	if m.bytes, m.turns, err = reconcile(a, b); err != nil {
		return m, err
	}
	m.took = seconds(c.CPU() - began)
	if a.Digest() != b.Digest() || a.Len() != records+differ {
		return m, fmt.Errorf("names: %d and %d records after a comparison of %d", a.Len(), b.Len(), records+differ)
	}
	return m, nil
}

// randomName is a record of some time in the last month.
func randomName(rng *rand.Rand, author peer.ID, key string) (*names.Record, error) {
	value := make([]byte, nameValue)
	for i := range value {
		value[i] = byte(rng.Uint32())
	}
	ago := time.Duration(rng.Int64N(int64(30 * 24 * time.Hour)))
	return names.Record{Key: key, Value: value, Time: names.At(today.Add(-ago)), Author: author}.Sign(names.Pool{1}, unsigned{})
}

// reconcile has two sets become equal, and counts what is said: the bytes of turns, without the stream's framing.
func reconcile(a, b *names.Set) (bytes, turns float64, err error) {
	const noLimit = 1 << 63
	sets := [2]*names.Set{b, a}
	sides := [2]*names.Session{names.NewSession(b, noLimit, 0), names.NewSession(a, noLimit, 0)}
	turn := sides[1].Start()
	for i := 0; ; i = 1 - i {
		turns++
		bytes += float64(len(turn.Ranges) + len(turn.Want))
		for _, r := range turn.Records {
			bytes += float64(r.Size() + 4)
			if old := sets[i].Get(r.Key); old == nil || r.Beats(old) {
				sets[i].Put(r)
			}
		}
		out, err := sides[i].Step(turn.Ranges, turn.Want, len(turn.Records))
		if err != nil || out.Done {
			return bytes, turns, err
		}
		turn = out.Turn
	}
}
