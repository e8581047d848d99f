package roster

import (
	"bytes"
	"cmp"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/ident"
)

const (
	// BeatEvery is how often a member is heard from while it is there, in a pool that is not large; see Pace.
	BeatEvery = 2 * time.Second
	// AwayAfter is how long a member may be silent before it is away, in such a pool: five heartbeats.
	AwayAfter = 10 * time.Second
	// paceMembers is up to how many members a pool is not large, and paceMost by how much heartbeats slow down at most.
	paceMembers = 64
	paceMost    = 16
	// AbsentAfter and DepartedAfter count from when the member was last heard of.
	AbsentAfter   = 72 * time.Hour
	DepartedAfter = 30 * 24 * time.Hour
	// WakeGrace is how long this peer judges nobody after it started or woke up: the others need that long to be heard, and
	// those of a large pool longer.
	WakeGrace = 15 * time.Second
	// stallAfter is a gap between two steps that says this peer was not running: it slept or was stopped.
	stallAfter = 3 * BeatEvery

	// RecordsMax bounds the records held of a pool, and strayMax those among them that do not count yet because no chain
	// of admins leads to their signer.
	RecordsMax = 8192
	strayMax   = 512
)

// Pace is how often each member of a pool of so many says that it is there, and how long it may be silent. Beyond
// paceMembers it slows down in proportion, so that a member has as many heartbeats to send and to hear in a second however
// large the pool is, as with Nomad's heartbeats. Members that count one another differently by a fifth still agree.
func Pace(members int) (beat, away time.Duration) {
	beat = min(BeatEvery*time.Duration(max(members, paceMembers))/paceMembers, paceMost*BeatEvery)
	return beat, AwayAfter / BeatEvery * beat
}

// Moment is one instant on two clocks. Boot counts time since some start, sleep included, and never leaps: presence is
// judged by it. Wall is the time of day, right or wrong: certificates, and absences of days, are judged by it.
type Moment struct {
	Boot time.Duration
	Wall time.Time
}

// Event is something that happened: Learn, Beat, Bye, Woke or Tick.
type Event interface{ isEvent() }

// Learn brings records from anywhere: the disk, another member, the directory.
type Learn struct{ Records []ident.Record }

// Beat is a heartbeat of a member. Lends, when not nil, replaces what was known of what it lends.
type Beat struct {
	Peer  peer.ID
	Lends *Lends
}

// Bye is a member's word that it goes away: shutting down, or its lid closing.
type Bye struct{ Peer peer.ID }

// Woke says that this machine slept until now.
type Woke struct{}

// Tick lets time pass.
type Tick struct{}

func (Learn) isEvent() {}
func (Beat) isEvent()  {}
func (Bye) isEvent()   {}
func (Woke) isEvent()  {}
func (Tick) isEvent()  {}

// Change is a member that came, went, or whose state changed.
type Change struct {
	Was, Now Member // Was.ID is "" when it was not known
}

// Rejection is a record that was not taken or does not count, with the reason.
type Rejection struct {
	Record ident.Record
	Reason Reason
}

// Out is what follows from a step, in the order in which the shell acts on it: save before sending.
type Out struct {
	// Save holds records that are new and count. They are stored before anything else.
	Save []ident.Record
	// Close holds peers that are no longer in force: their connections are closed.
	Close []peer.ID
	// Spread holds the records to tell the other members; the same as Save.
	Spread []ident.Record
	// Changes lists the members whose entry differs from before, but for Seen and Lends.
	Changes []Change
	// Rejected lists what was refused of a Learn.
	Rejected []Rejection
	// Renew says that this peer's own certificate is past half its life.
	Renew bool
	// Dirty says that View differs from before in any way.
	Dirty bool
	// Wake is when Step wants a Tick if nothing else happens before.
	Wake time.Duration
}

// Config is what a roster begins with.
type Config struct {
	Origin ident.Origin
	Self   peer.ID
	// Seen says when members were last heard of, from before a restart.
	Seen map[peer.ID]time.Time
}

// presence is what is known of a peer beside its records.
type presence struct {
	state State
	since time.Time
	seen  time.Time
	beat  time.Duration // Boot of the last heartbeat
	lends Lends
}

// Roster is the machine. Only one goroutine may call its methods; View returns something that others may read.
type Roster struct {
	cfg     Config
	pool    ident.PoolID
	records map[string]ident.Record // by slot
	there   map[peer.ID]*presence
	auth    authority
	view    *View
	counts  map[[32]byte]bool // hashes of the records that count; replaced when they change, never written to
	sorted  []ident.Record    // those, by slot; replaced when they change, never written to
	digest  [32]byte          // of those

	started bool
	last    Moment
	grace   time.Duration // Boot until which nobody is judged
	due     time.Duration // Boot at which the first of those online will be away, as of the last settle; 0: never
}

// New makes a roster without members: records come by Learn.
func New(cfg Config) *Roster {
	r := &Roster{
		cfg:     cfg,
		pool:    cfg.Origin.ID(),
		records: make(map[string]ident.Record),
		there:   make(map[peer.ID]*presence),
		counts:  make(map[[32]byte]bool),
	}
	r.view = &View{}
	return r
}

// View returns the roster as of the last step.
func (r *Roster) View() *View { return r.view }

// Step takes one event. now must not go back on Boot; Wall may.
func (r *Roster) Step(now Moment, ev Event) Out {
	var out Out
	if r.started && now.Boot < r.last.Boot {
		panic("roster: boot time went back")
	}
	if !r.started || now.Boot-r.last.Boot > stallAfter {
		r.grace = now.Boot + r.wakeGrace()
	}
	r.started, r.last = true, now
	var fresh []ident.Record
	switch ev := ev.(type) {
	case Learn:
		fresh, out.Rejected = r.learn(ev.Records)
	case Beat:
		if r.beat(now, ev) { // nothing that shows: the view is brought up to date by the next tick
			return Out{Wake: r.wake(now)}
		}
	case Bye:
		if p := r.there[ev.Peer]; p != nil && p.state == Online {
			p.state, p.since = Away, now.Wall
		}
	case Woke:
		r.grace = now.Boot + r.wakeGrace()
	case Tick:
	default:
		panic("roster: unknown event")
	}
	r.settle(now, fresh, &out)
	return out
}

// wakeGrace is for how long nobody is judged: long enough for two heartbeats of each.
func (r *Roster) wakeGrace() time.Duration {
	beat, _ := r.view.Pace()
	return max(WakeGrace, 2*beat)
}

// learn takes records into their slots and returns those that changed something.
func (r *Roster) learn(recs []ident.Record) (fresh []ident.Record, rejected []Rejection) {
	for _, rec := range recs {
		if rec.In() != r.pool {
			rejected = append(rejected, Rejection{rec, Stranger})
			continue
		}
		slot := slotOf(rec)
		old, held := r.records[slot]
		switch {
		case held && (old.Hash() == rec.Hash() || !better(rec, old)):
		case !held && !r.room(rec):
			rejected = append(rejected, Rejection{rec, Forged})
		default:
			r.records[slot] = rec
			fresh = append(fresh, rec)
		}
	}
	return fresh, rejected
}

// room reports whether one more record may be held. Those whose signer is no admin may fill only a part, so that a
// member cannot crowd out what counts with signatures of invented keys.
func (r *Roster) room(rec ident.Record) bool {
	if len(r.records) >= RecordsMax {
		return false
	}
	return r.auth.ranked[rec.By()] || len(r.records)-len(r.counts) < strayMax
}

// slotOf names what a record may replace: another by the same signer with the same key.
func slotOf(rec ident.Record) string {
	if c, ok := rec.(ident.Certificate); ok {
		return c.Key() + "/" + c.Signer.String()
	}
	return rec.Key()
}

// better reports whether a replaces b, which has the same slot. It is a total order, so that all peers keep the same one.
func better(a, b ident.Record) bool {
	order := cmp.Or(compareWithin(a, b), bytes.Compare(hashOf(a), hashOf(b)))
	return order > 0
}

func hashOf(r ident.Record) []byte { h := r.Hash(); return h[:] }

func compareWithin(a, b ident.Record) int {
	switch a := a.(type) {
	case ident.Certificate:
		b := b.(ident.Certificate)
		return cmp.Or(cmp.Compare(a.Serial, b.Serial), a.NotAfter.Compare(b.NotAfter))
	case ident.Appointment:
		return a.At.Compare(b.(ident.Appointment).At)
	case ident.Revocation:
		return a.At.Compare(b.(ident.Revocation).At)
	case ident.Departure:
		return cmp.Compare(a.Serial, b.(ident.Departure).Serial)
	case ident.Notice:
		return cmp.Compare(a.Number, b.(ident.Notice).Number)
	}
	panic("roster: a record of an unknown kind")
}

// beat notes a heartbeat, and reports whether it changed nothing but when the member was last heard of. Only members are
// noted: nobody else can make this peer remember anything.
func (r *Roster) beat(now Moment, ev Beat) (quiet bool) {
	if _, reason := r.view.Judge(ev.Peer, now.Wall); reason != OK {
		return true
	}
	p := r.presence(ev.Peer, now)
	quiet = p.state == Online
	if !quiet {
		p.state, p.since = Online, now.Wall
	}
	p.beat, p.seen = now.Boot, now.Wall
	if ev.Lends != nil && p.lends != ev.Lends.clean() {
		p.lends, quiet = ev.Lends.clean(), false
	}
	return quiet
}

// clean bounds the texts of another peer.
func (l Lends) clean() Lends {
	l.Version = ident.CleanName(l.Version[:min(len(l.Version), LendsText)])
	l.System = ident.CleanName(l.System[:min(len(l.System), LendsText)])
	l.Battery = min(l.Battery, 100)
	l.Power = min(l.Power, PowerBattery)
	return l
}

func (r *Roster) presence(id peer.ID, now Moment) *presence {
	p := r.there[id]
	if p == nil {
		p = &presence{since: now.Wall, seen: r.cfg.Seen[id]}
		if !p.seen.IsZero() {
			p.since = p.seen
		}
		r.there[id] = p
	}
	return p
}
