package placement

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/golden"
	"github.com/shoal-os/shoal/dht/roster"
	"github.com/shoal-os/shoal/storage/chunk"
)

// TestTranscripts plays testdata/*.txt: a line is an event, what follows indented is the answer. "go test -update" writes
// the answers; read the diff.
//
//	self anna [patience 72h] [reserve 10G]         begins; then events, each after an optional "+DURATION"
//	members anna ben,away,owner=x cleo,space=50G   options: away away=5h unseen departed anchor draining untrusted space free up owner site;
//	                                               each says that it holds nothing, unless it is unheard
//	away ben / back ben / departed ben / heard ben 5h (another saw it so long ago)
//	piece p 1G [copies 2] [pin] / gone p / holds ben p q / reset ben p / drops ben p
//	taking ben p 10m / nudge ben p 1G / moving p / taken p / failed p / kept p
//	room ben 10G / need 10G / fill / woke / tick
//	run 80h        lets time pass, with a tick whenever one is wished for
//	rank p / promise p / assess p q / totals / what-if ben / targets p 1G / sources p / last-seen
func TestTranscripts(t *testing.T) { golden.Transcripts(t, play) }

var epoch = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

type player struct {
	t       testing.TB
	out     bytes.Buffer
	p       *Planner
	now     Moment
	wake    time.Duration
	brake   Brake
	names   map[chunk.CID]string
	members map[peer.ID]Peer
}

func play(t *testing.T, lines []string) []byte {
	w := &player{t: t, names: map[chunk.CID]string{}, members: map[peer.ID]Peer{}, now: Moment{Wall: epoch}}
	for _, line := range lines {
		fmt.Fprintln(&w.out, line)
		if words := strings.Fields(line); len(words) > 0 && words[0] != "#" {
			w.line(words)
		}
	}
	return w.out.Bytes()
}

func (w *player) say(format string, args ...any) { fmt.Fprintf(&w.out, "\t"+format+"\n", args...) }

func (w *player) line(words []string) {
	if d, ok := strings.CutPrefix(words[0], "+"); ok {
		w.pass(w.duration(d))
		words = words[1:]
	}
	verb, words := words[0], words[1:]
	if verb == "self" {
		w.p = New(w.config(words))
		return
	}
	if !w.ask(verb, words) {
		w.step(w.event(verb, words))
	}
	if verb == "members" {
		for _, text := range words {
			if id := w.member(text).ID; !strings.Contains(text, "unheard") {
				w.step(Holds{Peer: id})
			}
		}
	}
}

func (w *player) pass(d time.Duration) {
	w.now.Boot += d
	w.now.Wall = w.now.Wall.Add(d)
}

func (w *player) config(words []string) Config {
	cfg := Config{Self: peer.ID(words[0])}
	for k := 1; k+1 < len(words); k += 2 {
		switch words[k] {
		case "patience":
			cfg.Patience = w.duration(words[k+1])
		case "reserve":
			cfg.Reserve = uint64(w.size(words[k+1]))
		}
	}
	return cfg
}

func (w *player) duration(s string) time.Duration {
	d, err := time.ParseDuration(s)
	if err != nil {
		w.t.Fatal(err)
	}
	return d
}

func (w *player) size(s string) int64 {
	unit := int64(1)
	for k, suffix := range []string{"K", "M", "G", "T"} {
		if cut, ok := strings.CutSuffix(s, suffix); ok {
			s, unit = cut, 1<<(10*(k+1))
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		w.t.Fatal(err)
	}
	return n * unit
}

func (w *player) id(name string) chunk.CID {
	id := chunk.SumRaw([]byte(name))
	w.names[id] = name
	return id
}

func (w *player) ids(names []string) (ids []chunk.CID) {
	for _, n := range names {
		ids = append(ids, w.id(n))
	}
	return ids
}

func (w *player) member(text string) Peer {
	words := strings.Split(text, ",")
	m := Peer{Member: Member{ID: peer.ID(words[0]), Space: 100 << 30, Uptime: 50}, State: roster.Online, Free: 50 << 30}
	for _, word := range words[1:] {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "unheard":
		case "away":
			m.State, m.Seen = roster.Away, w.now.Wall
			if value != "" {
				m.Seen = w.now.Wall.Add(-w.duration(value))
			}
		case "unseen":
			m.State = roster.Away
		case "departed":
			m.State, m.Seen = roster.Departed, w.now.Wall
		case "anchor":
			m.Anchor = true
		case "draining":
			m.Draining = true
		case "untrusted":
			m.Untrusted = true
		case "space":
			m.Space = uint64(w.size(value))
		case "free":
			m.Free = uint64(w.size(value))
		case "up":
			m.Uptime = uint8(w.size(value))
		case "owner":
			m.Owner = value
		case "site":
			m.Site = value
		default:
			w.t.Fatalf("member %q: unknown %q", text, key)
		}
	}
	return m
}

func (w *player) event(verb string, words []string) Event {
	switch verb {
	case "members":
		var ev Members
		for _, text := range words {
			ev.List = append(ev.List, w.member(text))
		}
		return ev
	case "away":
		return Presence{peer.ID(words[0]), roster.Away, w.now.Wall}
	case "back":
		return Presence{peer.ID(words[0]), roster.Online, w.now.Wall}
	case "departed":
		return Presence{peer.ID(words[0]), roster.Departed, w.now.Wall}
	case "heard":
		return Hearsay{[]LastSeen{{peer.ID(words[0]), w.now.Wall.Add(-w.duration(words[1]))}}}
	case "piece":
		return w.piece(words)
	case "gone":
		return Pieces{Removed: w.ids(words)}
	case "holds":
		return Holds{Peer: peer.ID(words[0]), Added: w.ids(words[1:])}
	case "reset":
		return Holds{Peer: peer.ID(words[0]), Reset: true, Added: w.ids(words[1:])}
	case "drops":
		return Holds{Peer: peer.ID(words[0]), Removed: w.ids(words[1:])}
	case "taking":
		return Taking{peer.ID(words[0]), w.id(words[1]), w.duration(words[2])}
	case "nudge":
		return Nudge{w.id(words[1]), w.size(words[2]), peer.ID(words[0])}
	case "moving":
		return Moving{w.id(words[0])}
	case "taken":
		return Taken{w.id(words[0])}
	case "failed":
		return Failed{w.id(words[0])}
	case "kept":
		return Kept{w.id(words[0])}
	case "room":
		return Room{peer.ID(words[0]), uint64(w.size(words[1]))}
	case "need":
		return Need{uint64(w.size(words[0]))}
	}
	simple, ok := map[string]Event{"fill": Fill{}, "woke": Woke{}, "tick": Tick{}}[verb]
	if !ok {
		w.t.Fatalf("unknown event %q", verb)
	}
	return simple
}

func (w *player) piece(words []string) Event {
	pc := Piece{ID: w.id(words[0]), Size: w.size(words[1]), Copies: 3}
	for k, word := range words {
		switch word {
		case "copies":
			pc.Copies = int(w.size(words[k+1]))
		case "pin":
			pc.Pinned = true
		}
	}
	return Pieces{Changed: []Piece{pc}}
}

func (w *player) step(ev Event) {
	out := w.p.Step(w.now, ev)
	if err := w.p.Check(); err != nil {
		w.t.Fatal(err)
	}
	for _, id := range out.Stop {
		w.say("stop %s", w.names[id])
	}
	for _, a := range out.Announce {
		w.say("announce %s for %v", w.names[a.Piece], a.For)
	}
	for _, f := range out.Fetch {
		w.say("fetch %s from %s: %v", w.names[f.Piece], peers(f.From), f.Why)
	}
	for _, tr := range out.Trim {
		w.say("trim %s if %d of %s have it, until %v", w.names[tr.Piece], tr.Need, peers(tr.From), tr.Until)
	}
	if out.Filled {
		w.say("filled")
	}
	if out.Brake != w.brake {
		w.brake = out.Brake
		w.say("brake: %s", map[bool]string{true: "off"}[w.brake == Free]+w.brake.String())
	}
	w.wake = out.Wake
}

func peers(ids []peer.ID) string {
	var names []string
	for _, id := range ids {
		names = append(names, string(id))
	}
	return strings.Join(names, ", ")
}

// ask answers what is a question and no event.
func (w *player) ask(verb string, words []string) bool {
	switch verb {
	case "run":
		w.run(w.duration(words[0]))
	case "rank":
		w.rank(words[0])
	case "promise":
		w.say("%v", w.p.Promise(w.now, w.id(words[0])))
	case "assess":
		w.say("%+v", w.p.Assess(w.ids(words)...))
	case "totals":
		w.say("%+v", w.p.Totals())
	case "what-if":
		l := w.p.WhatIf(peer.ID(words[0]))
		var lost []string
		for _, id := range l.Lost {
			lost = append(lost, w.names[id])
		}
		w.say("lost %v (%d bytes), moved %d (%d bytes), no room for %d bytes, %d bytes asleep", lost, l.LostBytes, l.Moved, l.MovedBytes, l.NoRoom, l.Asleep)
	case "last-seen":
		for _, l := range w.p.LastSeen(w.now) {
			w.say("%s %v ago", string(l.Peer), w.now.Wall.Sub(l.At))
		}
	case "targets":
		w.say("%s", peers(w.p.Targets(w.id(words[0]), w.size(words[1]))))
	case "sources":
		w.say("%s", peers(w.p.Sources(w.id(words[0]))))
	default:
		return false
	}
	return true
}

// run lets time pass.
func (w *player) run(d time.Duration) {
	end := w.now.Boot + d
	for w.wake > 0 && w.wake <= end {
		w.pass(w.wake - w.now.Boot)
		before := w.out.Len()
		w.out.WriteString(fmt.Sprintf("\tat %v:\n", w.now.Boot.Round(time.Second)))
		body := w.out.Len()
		w.step(Tick{})
		if w.out.Len() == body {
			w.out.Truncate(before)
		}
	}
	w.pass(end - w.now.Boot)
}

func (w *player) rank(name string) {
	var members []Member
	for i := range w.p.pool.list {
		if w.p.pool.list[i].used {
			members = append(members, w.p.pool.list[i].peer.Member)
		}
	}
	id := w.id(name)
	var order []peer.ID
	for _, i := range Rank(id.Sum[:], members) {
		order = append(order, members[i].ID)
	}
	w.say("%s", peers(order))
}
