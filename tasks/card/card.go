// Package card owns the directory's records job/<id>: by them any peer finds a job's stewards, lists the pool's jobs, and finds the
// results of work that was done before. The job's leading steward writes them; they are hints, and what counts is the group's ledger.
package card

import (
	"fmt"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/dht/wire"
	"github.com/shoal-os/shoal/tasks/card/pb"
	"github.com/shoal-os/shoal/tasks/job"
	"github.com/shoal-os/shoal/tasks/market"
)

const (
	// Prefix begins the keys of all cards.
	Prefix = "job/"
	// Max bounds an encoded card, in bytes.
	Max = 4 << 10
	// commandMax is how much of a command line is shown, in bytes.
	commandMax = 200
	timeMax    = 1 << 43 // milliseconds since 1970
)

// End is how a job ended. Numbers are part of the encoding and append-only.
type End uint8

// The ends.
const (
	NotYet   End = 0
	Done     End = 1
	Failed   End = 2
	Canceled End = 3
)

// Card is what everybody may know of a job.
type Card struct {
	ID        job.ID
	Name      string
	Kind      job.Kind
	Command   string // for people; shortened
	Submitter peer.ID
	Created   time.Time
	Tasks     int // with the reduce
	Stewards  []peer.ID
	Key       job.Key
	End       End
	Ended     time.Time // zero: not yet
	Expires   time.Time // when its results' time is over; zero: not known yet
}

// KeyOf is the record's key.
func KeyOf(id job.ID) string { return Prefix + id.String() }

// IDOf reads a job's id from a key.
func IDOf(key string) (job.ID, error) {
	text, ok := strings.CutPrefix(key, Prefix)
	if !ok {
		return job.ID{}, fmt.Errorf("card: the key %.80q", key)
	}
	return job.ParseID(text)
}

// Of makes the card of a job.
func Of(id job.ID, spec *job.Spec, stewards []peer.ID, p market.Progress) *Card {
	c := &Card{
		ID: id, Name: spec.Name, Kind: spec.Command.Kind, Command: CommandLine(spec), Submitter: spec.Submitter, Created: spec.Created,
		Tasks: spec.All(), Stewards: stewards, Key: spec.Key(),
	}
	if !p.Over {
		return c
	}
	switch {
	case p.Canceled != "":
		c.End = Canceled
	case p.Done == p.Tasks:
		c.End = Done
	default:
		c.End = Failed
	}
	c.Ended, c.Expires = p.Ended, p.Ended.Add(spec.Keep())
	return c
}

// CommandLine shows what a job runs, for people.
func CommandLine(spec *job.Spec) string {
	parts := spec.Command.Args
	if spec.Command.Kind == job.Proc {
		parts = append([]string{spec.Command.Path}, parts...)
	}
	text := wire.CleanText(strings.Join(parts, " "))
	if len(text) > commandMax {
		text = strings.ToValidUTF8(text[:commandMax-len("…")], "") + "…"
	}
	return text
}

// Encode writes a card.
func (c *Card) Encode() ([]byte, error) {
	m := &pb.Card{
		Name: c.Name, Kind: uint32(c.Kind), Command: c.Command, Submitter: []byte(c.Submitter), CreatedMs: millis(c.Created),
		Tasks: uint32(c.Tasks), Key: c.Key[:], End: uint32(c.End), EndedMs: millis(c.Ended), ExpiresMs: millis(c.Expires),
	}
	for _, s := range c.Stewards {
		m.Stewards = append(m.Stewards, []byte(s))
	}
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err == nil && len(raw) > Max {
		err = fmt.Errorf("%d bytes, the limit is %d", len(raw), Max)
	}
	if err != nil {
		return nil, fmt.Errorf("card: encode: %w", err)
	}
	return raw, nil
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return max(0, t.UnixMilli())
}

// Decode reads the card of a job.
func Decode(id job.ID, raw []byte) (*Card, error) {
	c, err := decode(id, raw)
	if err != nil {
		return nil, fmt.Errorf("card: %w", err)
	}
	return c, nil
}

func decode(id job.ID, raw []byte) (*Card, error) {
	if len(raw) > Max {
		return nil, fmt.Errorf("%d bytes, the limit is %d", len(raw), Max)
	}
	var m pb.Card
	if err := proto.Unmarshal(raw, &m); err != nil {
		return nil, err
	}
	switch {
	case m.GetKind() > 255 || m.GetTasks() > job.TasksMax+1 || len(m.GetStewards()) > market.StewardsMax || m.GetEnd() > uint32(Canceled):
		return nil, fmt.Errorf("%d tasks of kind %d, %d stewards, ended as %d", m.GetTasks(), m.GetKind(), len(m.GetStewards()), m.GetEnd())
	case len(m.GetKey()) != len(job.Key{}):
		return nil, fmt.Errorf("a key of %d bytes", len(m.GetKey()))
	}
	c := &Card{
		ID: id, Name: ident.CleanName(m.GetName()), Kind: job.Kind(m.GetKind()), Command: wire.CleanText(m.GetCommand()), Tasks: int(m.GetTasks()),
		Key: job.Key(m.GetKey()), End: End(m.GetEnd()),
	}
	var err error
	if c.Submitter, err = peer.IDFromBytes(m.GetSubmitter()); err != nil {
		return nil, err
	}
	for _, s := range m.GetStewards() {
		p, err := peer.IDFromBytes(s)
		if err != nil {
			return nil, err
		}
		c.Stewards = append(c.Stewards, p)
	}
	for _, t := range []struct {
		to *time.Time
		ms int64
	}{{&c.Created, m.GetCreatedMs()}, {&c.Ended, m.GetEndedMs()}, {&c.Expires, m.GetExpiresMs()}} {
		if t.ms < 0 || t.ms > timeMax {
			return nil, fmt.Errorf("a time out of bounds")
		}
		if t.ms > 0 {
			*t.to = time.UnixMilli(t.ms).UTC()
		}
	}
	return c, nil
}
