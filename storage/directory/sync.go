package directory

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/wire"
	"github.com/shoal-os/shoal/storage/directory/names"
)

const (
	// sessionsOut and sessionsIn are how many reconciliations this peer begins and takes part in at a time, hellos
	// not counted. They are few because a peer that was away should get what it missed once, not from everybody.
	sessionsOut = 2
	sessionsIn  = 2

	// turnTime is how long the other side may take for one turn; sessionTime how long all of them may take.
	turnTime    = 20 * time.Second
	sessionTime = 5 * time.Minute

	// packetMax is the largest message of a stream, in bytes: a turn, and what framing its records adds.
	packetMax = names.TurnMax + 64<<10

	// syncedEvery is how often it is put on disk that this peer is in step with the pool.
	syncedEvery = time.Hour
)

// keepInStep begins sessions with the members whose time has come.
func (d *Directory) keepInStep() {
	slots := make(chan struct{}, sessionsOut)
	for {
		select {
		case slots <- struct{}{}:
		case <-d.ctx.Done():
			return
		}
		p, ok := d.nextContact()
		if !ok {
			return
		}
		d.wg.Go(func() {
			defer func() { <-slots }()
			d.compareWith(p)
		})
	}
}

// nextContact waits until a member is due.
func (d *Directory) nextContact() (peer.ID, bool) {
	for {
		d.contacts.update(d.cfg.Presence.Connected())
		p, wait := d.contacts.next()
		if p != "" {
			return p, true
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-d.contacts.wake:
		case <-d.ctx.Done():
		}
		timer.Stop()
		if d.ctx.Err() != nil {
			return "", false
		}
	}
}

// compareWith runs one session that this side begins.
func (d *Directory) compareWith(p peer.ID) {
	if d.contacts.idle(p, d.Digest()) {
		d.contacts.ended(p, true, inStep, d.Digest())
		return
	}
	how, _ := d.begin(p) // why it failed, the next one will tell again
	d.contacts.ended(p, true, how, d.Digest())
}

// Compare has this directory and a member's compared at once, and reports whether both hold the same now. If not, what
// differed was on its way when it returned: ask again.
func (d *Directory) Compare(p peer.ID) (bool, error) {
	how, err := d.begin(p)
	d.contacts.ended(p, true, how, d.Digest())
	return how == inStep, err
}

func (d *Directory) begin(p peer.ID) (outcome, error) {
	ctx, cancel := context.WithTimeout(d.ctx, turnTime)
	defer cancel()
	raw, err := d.cfg.Streams.NewStream(ctx, p, Protocol)
	if err != nil {
		return failed, err
	}
	c := d.newConversation(raw, p)
	defer c.close()
	c.began = true
	how, err := c.begin()
	return c.end(how, err)
}

// serve answers a session that another member began.
func (d *Directory) serve(raw network.Stream) {
	p := raw.Conn().RemotePeer()
	c := d.newConversation(raw, p)
	defer c.close()
	if d.ctx.Err() != nil {
		c.refuse(wire.Errorf(wire.Closing, "this peer is going away"))
		return
	}
	how, err := c.answer()
	if err != nil && !errors.Is(err, errOver) {
		c.refuse(err)
	}
	if how, err = c.end(how, err); err == nil {
		d.contacts.ended(p, false, how, d.Digest())
	}
}

// conversation is one stream, seen from either side.
type conversation struct {
	d     *Directory
	raw   network.Stream
	in    *bufio.Reader
	peer  peer.ID
	until time.Time
	stop  func() bool

	own, other names.Hello
	session    *names.Session
	moved      int  // records that came in or were dropped
	began      bool // by this side
	slot       bool
}

// errOver ends a conversation in which there is nothing more to say.
var errOver = errors.New("over")

func (d *Directory) newConversation(raw network.Stream, p peer.ID) *conversation {
	return &conversation{
		d: d, raw: raw, in: bufio.NewReader(raw), peer: p, until: time.Now().Add(sessionTime),
		// A blocked read or write must not outlive the directory.
		stop: context.AfterFunc(d.ctx, func() { _ = raw.Reset() }),
	}
}

func (c *conversation) close() {
	c.stop()
	if c.slot {
		<-c.d.slots
	}
	_ = c.raw.Close()
}

// end settles how a conversation ended: its outcome, and whether the two are in step now.
func (c *conversation) end(how outcome, err error) (outcome, error) {
	if err != nil && !errors.Is(err, errOver) {
		if wire.KindOf(err) == wire.Busy {
			return busy, err
		}
		_ = wire.Reset(c.raw, err)
		return failed, err
	}
	if how != inStep && c.moved > 0 {
		how = changed
	}
	return how, c.d.noteInStep(c.other)
}

func (c *conversation) send(p *Packet) error {
	_ = c.raw.SetDeadline(earlier(time.Now().Add(turnTime), c.until)) // a stream without deadlines has its own ends
	return wire.WriteMsg(c.raw, p, packetMax)
}

func (c *conversation) receive() (*Packet, error) {
	_ = c.raw.SetDeadline(earlier(time.Now().Add(turnTime), c.until))
	var p Packet
	if err := wire.ReadMsg(c.in, &p, packetMax); err != nil {
		return nil, err
	}
	if p.Refusal != nil {
		return nil, &wire.Error{Kind: wire.ErrKind(p.Refusal.Kind), Text: wire.CleanText(p.Refusal.Text)}
	}
	return &p, nil
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// refuse tells the other side why the conversation ends.
func (c *conversation) refuse(err error) {
	kind := wire.KindOf(err)
	text := "the directory cannot go on"
	if e := (*wire.Error)(nil); errors.As(err, &e) {
		text = e.Text
	}
	_ = c.send(&Packet{Refusal: &Refusal{Kind: uint32(kind), Text: text}})
}

// begin is the side that opened the stream.
func (c *conversation) begin() (outcome, error) {
	c.own = c.d.hello()
	if err := c.send(&Packet{Hello: helloToWire(&c.own)}); err != nil {
		return failed, err
	}
	p, err := c.receive()
	if err != nil {
		return failed, err
	}
	if err := c.hear(p); err != nil {
		return failed, err
	}
	if c.own = c.d.hello(); c.own.Digest == c.other.Digest {
		return inStep, nil
	}
	c.newSession()
	turn := c.start()
	if err := c.send(&Packet{Turn: turn}); err != nil {
		return failed, err
	}
	return c.takeTurns()
}

// answer is the other side.
func (c *conversation) answer() (outcome, error) {
	p, err := c.receive()
	if err != nil {
		return failed, err
	}
	if err := c.hear(p); err != nil {
		return failed, err
	}
	c.own = c.d.hello()
	if err := c.send(&Packet{Hello: helloToWire(&c.own)}); err != nil {
		return failed, err
	}
	if c.own.Digest == c.other.Digest {
		// The other side ends it now, unless what it holds changed since.
		if p, err := c.receive(); err != nil || p.Turn == nil {
			return inStep, nil
		}
		return inStep, wire.Errorf(wire.Busy, "nothing differed a moment ago")
	}
	c.newSession()
	return c.takeTurns()
}

// hear takes the other side's hello, and what it says of the time.
func (c *conversation) hear(p *Packet) error {
	if p.Hello == nil {
		return wire.Errorf(wire.Malformed, "a hello was expected")
	}
	var err error
	if c.other, err = helloFromWire(p.Hello); err != nil {
		return err
	}
	return c.d.hearClock(c.peer, c.other)
}

func (c *conversation) newSession() {
	c.d.mu.RLock()
	defer c.d.mu.RUnlock()
	c.session = c.d.replica.Session(c.own, c.other, c.d.clock.now())
}

func (c *conversation) start() *Turn {
	c.d.mu.RLock()
	defer c.d.mu.RUnlock()
	t := c.session.Start()
	return turnToWire(&t)
}

// takeTurns runs the session to its end. The other side may end the stream once both have nothing more to say.
func (c *conversation) takeTurns() (outcome, error) {
	quiet := false // the last turn of this side was empty
	for {
		p, err := c.receive()
		if err != nil {
			if quiet && errors.Is(err, io.EOF) {
				return still, nil
			}
			return failed, err
		}
		if p.Turn == nil {
			return failed, wire.Errorf(wire.Malformed, "a turn was expected")
		}
		if err := c.takeSlot(); err != nil {
			return failed, err
		}
		turn, done, err := c.step(p.Turn)
		if err != nil {
			return failed, err
		}
		if done {
			return still, nil
		}
		quiet = len(turn.Ranges)+len(turn.Want)+len(turn.Records) == 0
		if err := c.send(&Packet{Turn: turn}); err != nil {
			return failed, err
		}
	}
}

// takeSlot bounds the sessions that others have here; those that this side began have their own bound.
func (c *conversation) takeSlot() error {
	if c.slot || c.began {
		return nil
	}
	select {
	case c.d.slots <- struct{}{}:
		c.slot = true
		return nil
	default:
		return wire.Errorf(wire.Busy, "this peer is catching up with others")
	}
}

// step takes one turn of the other side in and makes the answer.
func (c *conversation) step(t *Turn) (turn *Turn, done bool, err error) {
	records, err := c.d.decode(t.Records)
	if err != nil {
		return nil, false, wire.Errorf(wire.Malformed, "%v", err)
	}
	won, err := c.d.receive(records)
	if err != nil {
		return nil, false, err
	}
	c.moved += won
	c.d.mu.RLock()
	out, err := c.session.Step(t.Ranges, t.Want, len(records))
	c.d.mu.RUnlock()
	if err != nil {
		return nil, false, wire.Errorf(wire.Malformed, "%v", err)
	}
	if len(out.Drop) > 0 {
		c.moved += len(out.Drop)
		if err := c.d.drop(out.Drop); err != nil {
			return nil, false, err
		}
	}
	return turnToWire(&out.Turn), out.Done, nil
}

// hello says what this directory is.
func (d *Directory) hello() names.Hello {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.replica.Hello(d.clock.now())
}

// hearClock takes in what another member says of the time, and stamps own records anew if they turn out to be ahead
// of it.
func (d *Directory) hearClock(from peer.ID, h names.Hello) error {
	shift := time.Duration(0)
	err := d.submit(d.ctx, &job{news: true, decide: func(b *batch) error {
		now := d.clock.now()
		shift += d.replica.Hear(from, h, now)
		return d.moved(b, shift, now)
	}})
	if err == nil && shift != 0 {
		d.contacts.hurry()
	}
	return err
}

// moved stamps own records anew that are ahead of the pool's time, which was found to be another by shift.
func (d *Directory) moved(b *batch, shift time.Duration, now time.Time) error {
	if !d.replica.Clock.Confirmed() {
		return nil
	}
	records, err := d.replica.Restamp(shift, now)
	for _, r := range records {
		b.put(r)
	}
	if err != nil {
		return fmt.Errorf("directory: stamp anew: %w", err)
	}
	return nil
}

// noteInStep notes that a session with one who said hello so was completed.
func (d *Directory) noteInStep(other names.Hello) error {
	now := d.clock.now()
	d.mu.RLock()
	synced := d.replica.Synced
	age := d.replica.Clock.Now(now).Sub(synced)
	d.mu.RUnlock()
	if !synced.IsZero() && (other.Fresh || age < syncedEvery && age > -syncedEvery) {
		return nil
	}
	return d.submit(d.ctx, &job{decide: func(b *batch) error {
		b.synced = d.replica.Clock.Now(d.clock.now())
		b.add(syncedEntry(b.synced))
		return nil
	}})
}
