package sched

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shoal-os/shoal/dht/golden"
	"github.com/shoal-os/shoal/storage/chunk/bitfield"
)

// TestTranscripts plays testdata/*.txt: a line is an event and what follows
// indented is the answer. "go test -update" writes the answers; read the diff.
//
//	leaves 20 [sequential] [want 3-9] [size 4096] [seed 7]
//	0s join 1            peer 1 is here and has everything
//	0s join 2 0-9        peer 2 has leaves 0 to 9
//	1s got 1 0-3         leaves arrived; "ok 0-3" verifies, "bad 1 0-3" finds them wrong
//	1s deliver 1 0-3     got and ok, leaf by leaf
//	1s part 1 1000       bytes of a leaf that is not whole yet
//	1s has 2 10 / soon 2 11 / gone 1 4 / choke 1 / unchoke 1 / left 1 / seek 5 / want 3 / unwant 3 / tick
//
// choker transcripts begin with "choker" and have lines of another kind:
//
//	0s 1 2 3+ 4 gave=100   who asks now; + is a member
func TestTranscripts(t *testing.T) { golden.Transcripts(t, play) }

// play runs the events of a transcript and returns it with today's answers.
func play(t *testing.T, lines []string) []byte {
	var out bytes.Buffer
	var p *player
	var choker *chokePlayer
	for _, line := range lines {
		fmt.Fprintln(&out, line)
		words := strings.Fields(line)
		var err error
		switch {
		case len(words) == 0 || words[0] == "#":
		case words[0] == "choker":
			choker = &chokePlayer{out: &out}
		case choker != nil:
			err = choker.line(words)
		case words[0] == "leaves":
			p, err = newPlayer(&out, words[1:])
		case p == nil:
			err = fmt.Errorf("no leaves line before")
		default:
			err = p.line(words)
		}
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
	}
	return out.Bytes()
}

// player plays a transcript of a download.
type player struct {
	out  *bytes.Buffer
	s    *Scheduler
	cfg  Config
	size int
	wake time.Time
}

var epoch = time.Unix(1_000_000, 0)

func newPlayer(out *bytes.Buffer, words []string) (*player, error) {
	n, err := strconv.Atoi(words[0])
	if err != nil {
		return nil, err
	}
	p := &player{out: out, size: 1 << 20}
	p.cfg = Config{Leaves: n, Size: func(int) int { return p.size }, Self: 1000}
	for k := 1; k < len(words); k++ {
		switch words[k] {
		case "sequential":
			p.cfg.Sequential = true
			continue
		case "want":
			p.cfg.Want, err = parseSet(words[k+1], n)
		case "size":
			p.size, err = strconv.Atoi(words[k+1])
		case "seed":
			p.cfg.Seed, err = strconv.ParseUint(words[k+1], 10, 64)
		default:
			err = fmt.Errorf("unknown word %q", words[k])
		}
		if k++; err != nil {
			return nil, err
		}
	}
	p.s = New(p.cfg)
	return p, nil
}

func parseRun(s string) (bitfield.Run, error) {
	a, b, more := strings.Cut(s, "-")
	if !more {
		b = a
	}
	first, err := strconv.Atoi(a)
	if err != nil {
		return bitfield.Run{}, err
	}
	last, err := strconv.Atoi(b)
	return bitfield.Run{First: first, Count: last - first + 1}, err
}

func parseSet(s string, n int) (*bitfield.Bitfield, error) {
	set := bitfield.New(n)
	if s == "none" {
		return set, nil
	}
	for part := range strings.SplitSeq(s, ",") {
		r, err := parseRun(part)
		if err != nil {
			return nil, err
		}
		set.SetRun(r)
	}
	return set, nil
}

// kinds says what an event's words mean.
var kinds = map[string]struct {
	kind      Kind
	peer, run bool
}{
	"join": {Joined, true, false}, "has": {Has, true, true}, "soon": {Soon, true, true}, "left": {Left, true, false}, "got": {Arrived, true, true},
	"part": {Moving, true, false}, "ok": {Verified, false, true}, "bad": {Corrupt, true, true}, "gone": {Refused, true, true},
	"choke": {Choked, true, false}, "unchoke": {Unchoked, true, false}, "seek": {Seek, false, true},
	"want": {Wanted, false, true}, "unwant": {Unwanted, false, true}, "tick": {Tick, false, false},
}

func (p *player) line(words []string) error {
	at, err := time.ParseDuration(words[0])
	if err != nil {
		return err
	}
	now := epoch.Add(at)
	if words[1] == "deliver" {
		r, err := parseRun(words[3])
		for i := r.First; i < r.First+r.Count && err == nil; i++ {
			leaf := strconv.Itoa(i)
			if err = p.event(now, []string{"got", words[2], leaf}); err == nil {
				err = p.event(now, []string{"ok", leaf})
			}
		}
		return err
	}
	return p.event(now, words[1:])
}

func (p *player) event(now time.Time, words []string) error {
	k, ok := kinds[words[0]]
	if !ok {
		return fmt.Errorf("unknown event")
	}
	ev := Event{Kind: k.kind}
	words = words[1:]
	var err error
	if k.peer {
		var id int
		id, err = strconv.Atoi(words[0])
		ev.Peer, ev.Name, words = Peer(id), uint64(id), words[1:]
	}
	if k.run && err == nil {
		ev.Run, err = parseRun(words[0])
	}
	if err != nil {
		return err
	}
	switch {
	case k.kind == Arrived:
		ev.Bytes = ev.Run.Count * p.size
	case k.kind == Moving:
		ev.Bytes, err = strconv.Atoi(words[0])
	case k.kind == Joined && len(words) > 0:
		ev.Have, err = parseSet(words[0], p.cfg.Leaves)
	}
	if err != nil {
		return err
	}
	p.answer(p.s.Step(now, ev))
	return p.s.Check()
}

func show(r bitfield.Run) string {
	if r.Count == 1 {
		return strconv.Itoa(r.First)
	}
	return fmt.Sprintf("%d-%d", r.First, r.First+r.Count-1)
}

func (p *player) answer(out *Out) {
	for _, d := range out.Drops {
		verb := "drop"
		if d.Ban {
			verb = "ban"
		}
		fmt.Fprintf(p.out, "\t%s %d: %s\n", verb, d.Peer, d.Why)
	}
	for _, c := range out.Cancels {
		fmt.Fprintf(p.out, "\tcancel %d: %s\n", c.Peer, show(c.Run))
	}
	for _, a := range out.Asks {
		fmt.Fprintf(p.out, "\task %d: %s\n", a.Peer, show(a.Run))
	}
	if out.Done {
		fmt.Fprintln(p.out, "\tdone")
	}
	if out.Wake != p.wake {
		p.wake = out.Wake
		if p.wake.IsZero() {
			fmt.Fprintln(p.out, "\tno wake")
		} else {
			fmt.Fprintf(p.out, "\twake at %v\n", p.wake.Sub(epoch))
		}
	}
}

// chokePlayer plays a transcript of a choker.
type chokePlayer struct {
	out *bytes.Buffer
	c   Choker
}

func (p *chokePlayer) line(words []string) error {
	at, err := time.ParseDuration(words[0])
	if err != nil {
		return err
	}
	var asking []Interest
	for _, w := range words[1:] {
		if gave, ok := strings.CutPrefix(w, "gave="); ok {
			if asking[len(asking)-1].Gave, err = strconv.ParseFloat(gave, 64); err != nil {
				return err
			}
			continue
		}
		name, member := strings.CutSuffix(w, "+")
		id, err := strconv.ParseUint(name, 10, 64)
		if err != nil {
			return err
		}
		asking = append(asking, Interest{ID: id, Member: member})
	}
	choice := p.c.Step(epoch.Add(at), asking)
	fmt.Fprint(p.out, "\tserve")
	for _, a := range asking {
		if choice.Serve[a.ID] {
			fmt.Fprintf(p.out, " %d", a.ID)
		}
	}
	if len(choice.Serve) > len(asking) {
		return fmt.Errorf("serves somebody who does not ask: %v", choice.Serve)
	}
	fmt.Fprintf(p.out, "; wake at %v\n", choice.Wake.Sub(epoch))
	return nil
}
