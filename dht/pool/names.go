package pool

import (
	"iter"
	"time"

	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/dht/roster"
)

// namesEvery is how often what the records say and what this peer knows are compared in full.
const namesEvery = time.Minute

// namePrefixes are where records of membership lie among the names; see the Key methods in ident.
var namePrefixes = []string{"member/", "admin/", "evict/", "left/", "secret/"}

// noRecords is the absent directory: nothing is left there and nothing found.
type noRecords struct{}

func (noRecords) Put(string, []byte) error                 { return nil }
func (noRecords) Scan(string) iter.Seq2[string, []byte]    { return func(func(string, []byte) bool) {} }
func (noRecords) Watch(string, func(string)) (stop func()) { return func() {} }

// UseRecords gives the pool the convergent names, in which it leaves its records for members that are away, and finds those
// of others. It may be called once, any time after Open; the pool needs the directory's news as little as the directory
// needs the pool's to begin with.
func (p *Pool) UseRecords(r Records) {
	changed := make(chan struct{}, 1)
	nudge := func(string) {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	var stops []func()
	for _, prefix := range namePrefixes {
		stops = append(stops, r.Watch(prefix, nudge))
	}
	_ = p.do(p.ctx, func() {
		p.names = r
		p.unname = func() {
			for _, stop := range stops {
				stop()
			}
		}
		// The names of a peer that was away, or has just joined, lack what they are about to learn from other members': to leave
		// it there too would be news to all, of every record there is.
		if p.readNames(); len(p.view().Members()) > 1 {
			p.due.names = p.clock.boot() + namesEvery
		} else {
			p.reconcileNames()
		}
	})
	p.wg.Go(func() {
		for {
			select {
			case <-changed:
				p.post(p.readNames)
			case <-p.ctx.Done():
				return
			}
		}
	})
}

// readNames learns what the names say.
func (p *Pool) readNames() {
	if p.over() {
		return
	}
	known := make(map[string]bool)
	for _, rec := range p.view().Records() {
		known[string(rec.Raw())] = true
	}
	var recs []ident.Record
	for _, prefix := range namePrefixes {
		for _, value := range p.names.Scan(prefix) {
			if known[string(value)] || len(recs) >= roster.RecordsMax {
				continue
			}
			if rec, err := ident.ParseRecord(value); err == nil {
				recs = append(recs, rec)
			}
		}
	}
	if len(recs) > 0 {
		_, _ = p.apply(roster.Learn{Records: recs}, p.cfg.Identity.ID)
	}
}

// reconcileNames learns what the names say, and leaves there what they lack: a member with bad intent can overwrite a name,
// but every other member puts it back.
func (p *Pool) reconcileNames() {
	p.readNames()
	there := make(map[string]string)
	for _, prefix := range namePrefixes {
		for key, value := range p.names.Scan(prefix) {
			there[key] = string(value)
		}
	}
	for key, rec := range p.bestNames() {
		if there[key] != string(rec.Raw()) {
			_ = p.names.Put(key, rec.Raw()) // tried again in a minute
		}
	}
}

// leaveNames leaves new records among the names. Whoever made them does, or brought them into the pool; if it fails to, those
// who find them missing do.
func (p *Pool) leaveNames(recs []ident.Record) {
	best := p.bestNames()
	for _, rec := range recs {
		if b, ok := best[rec.Key()]; !ok || b.Hash() == rec.Hash() {
			_ = p.names.Put(rec.Key(), rec.Raw()) // reconcileNames tries again
		}
	}
}

// bestNames says which record is to stand under each name: of several certificates of one peer, that which counts.
func (p *Pool) bestNames() map[string]ident.Record {
	out := make(map[string]ident.Record)
	view := p.view()
	for _, rec := range view.Records() {
		if _, ok := rec.(ident.Certificate); !ok {
			out[rec.Key()] = rec
		}
	}
	for _, m := range append(view.Members(), view.Former()...) {
		if c, ok := m.Certificate(); ok {
			out[c.Key()] = c
		}
	}
	return out
}
