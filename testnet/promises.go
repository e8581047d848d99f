package testnet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/shoal-os/shoal/testnet/report"
)

const (
	settleWait  = 2 * time.Minute // until all that can be back are back
	namesWait   = 2 * time.Minute // until all hold the same names
	readingWait = 5 * time.Minute // to read everything again
	readers     = 3               // peers that read each file at the end
	rssDefault  = 400 << 20       // most resident bytes of a peer
	brokenShown = 5               // broken files and the like that a report names
)

// settle undoes all faults and waits until the peers are what they were: promises are about what was kept, not about
// what can be reached meanwhile.
func (w *world) settle(ctx context.Context) {
	w.logLine("settling: the network heals, sleepers wake, disks are well, the dead come back")
	began := w.now()
	_ = w.heal()
	var back []int
	for i, p := range w.peers {
		if err := w.endEnemy(p); err != nil {
			w.logLine("  %v", err)
		}
		_ = p.pause(false)
		if err := p.endDisk(); err != nil {
			w.logLine("  %v", err)
		}
		p.mu.Lock()
		if p.started && p.cmd == nil && !p.left && len(p.crashes) == 0 {
			back = append(back, i)
		}
		p.mu.Unlock()
	}
	err := w.each(back, starting, func(p *peer) error { return p.start(ctx) })
	if err == nil && len(w.live()) > 1 && w.founder >= 0 {
		err = eventually(ctx, settleWait, w.together)
	}
	w.promise("all members find each other again", err, "", fmt.Sprintf("%d peers, %.1f s after the last fault", len(w.live()), w.now()-began))
}

// promise notes one; text is what is told when it was kept.
func (w *world) promise(name string, err error, skip, text string) {
	p := report.Promise{Name: name, Held: err == nil && skip == "", Skipped: skip, Text: text}
	switch {
	case skip != "":
		w.logLine("promise not looked at: %s: %s", name, skip)
	case err != nil:
		p.Text = err.Error()
		w.logLine("PROMISE BROKEN: %s: %v", name, err)
	default:
		w.logLine("promise held: %s: %s", name, text)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.out.Promises = append(w.out.Promises, p)
}

func (w *world) keepPromises(ctx context.Context) {
	w.promiseNames(ctx)
	w.promiseFiles(ctx)
	w.promiseJobs(ctx)
	w.promiseMemory()
	// An orderly end is the last thing that could go wrong by itself.
	all := make([]int, len(w.peers))
	for i := range all {
		all[i] = i
	}
	w.promiseAlive(w.each(all, starting, func(p *peer) error { return p.end("stopped") }))
}

// promiseNames: the directories of all peers are equal in the end.
func (w *world) promiseNames(ctx context.Context) {
	name := "the names are the same on all peers"
	live := w.live()
	if len(live) < 2 || w.founder < 0 {
		w.promise(name, nil, "there is no pool of several", "")
		return
	}
	began := w.now()
	err := eventually(ctx, namesWait, w.sameNames)
	text := ""
	if _, views, verr := w.views(ctx); verr == nil && len(views) > 0 {
		text = fmt.Sprintf("%d names on each of %d peers, digest %s, after %.1f s", views[0].Names.Records, len(live), views[0].Names.Digest, w.now()-began)
	}
	w.promise(name, err, "", text)
}

// promiseFiles: whatever was acknowledged is read whole, on several peers, and whatever was read at any time was right.
func (w *world) promiseFiles(ctx context.Context) {
	const name = "every acknowledged file is whole"
	live := w.live()
	var all []*data
	w.mu.Lock()
	wrong := append([]string(nil), w.wrong...)
	for _, d := range w.data {
		if d.acked {
			all = append(all, d)
		}
	}
	w.mu.Unlock()
	if len(all) == 0 && len(wrong) == 0 {
		w.promise(name, nil, "no file was acknowledged", "")
		return
	}
	wait := w.plan.Setting.Reading
	if wait == 0 {
		wait = readingWait
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	var mu sync.Mutex
	var broken []string
	files, began := 0, w.now()
	for _, d := range all {
		files += len(d.blobs)
		who := rand.New(rand.NewPCG(w.plan.Seed, uint64(len(d.name)))).Perm(len(live))
		var reading sync.WaitGroup
		for _, i := range who[:min(readers, len(who))] {
			reading.Go(func() {
				if err := w.readOn(ctx, live[i], d); err != nil {
					mu.Lock()
					broken = append(broken, err.Error())
					mu.Unlock()
				}
			})
		}
		reading.Wait()
	}
	if len(live) == 0 {
		broken = append(broken, "no peer is left that could read them")
	}
	w.promise(name, listed(append(wrong, broken...)), "", fmt.Sprintf("%d files, each read on %d peers in %.1f s", files, min(readers, len(live)), w.now()-began))
}

// oneLine is several errors as one, in one line; what is skipped counts for nothing beside a failure.
func oneLine(errs []error) error {
	var found []string
	var first error
	for _, err := range errs {
		if err == nil {
			continue
		}
		var skip skipped
		if first == nil || errors.As(first, &skip) {
			first = err
		}
		if !errors.As(err, &skip) {
			found = append(found, err.Error())
		}
	}
	if len(found) <= 1 {
		return first
	}
	return listed(found)
}

// listed is an error of several findings, the first few in full.
func listed(found []string) error {
	if len(found) == 0 {
		return nil
	}
	text := strings.Join(found[:min(len(found), brokenShown)], "; ")
	if more := len(found) - brokenShown; more > 0 {
		text += fmt.Sprintf("; and %d more", more)
	}
	return errors.New(text)
}

// crashWords begin what a Go program says when it dies or is found racing.
var crashWords = [][]byte{[]byte("panic: "), []byte("fatal error: "), []byte("WARNING: DATA RACE"), []byte("SIGSEGV")}

// promiseAlive: no peer ended by itself, and none said in its log that it broke.
func (w *world) promiseAlive(ending error) {
	var found []string
	if ending != nil {
		found = append(found, ending.Error())
	}
	started := 0
	for _, p := range w.peers {
		p.mu.Lock()
		found = append(found, p.crashes...)
		if p.started {
			started++
		}
		p.mu.Unlock()
		log := p.readLog()
		for _, word := range crashWords {
			if at := bytes.Index(log, word); at >= 0 {
				line, _, _ := bytes.Cut(log[at:], []byte("\n"))
				found = append(found, fmt.Sprintf("%s's log says %q", p.name, line))
				break
			}
		}
	}
	w.promise("no peer ends by itself", listed(found), "", fmt.Sprintf("%d peers", started))
}

// promiseMemory: no peer ever had more resident than it may.
func (w *world) promiseMemory() {
	limit := w.plan.Setting.RSS
	if limit == 0 {
		limit = rssDefault
	}
	var found []string
	most := int64(0)
	for _, p := range w.peers {
		p.sample()
		p.mu.Lock()
		most = max(most, p.rss)
		if p.rss > limit {
			found = append(found, fmt.Sprintf("%s had %s", p.name, bytesText(p.rss)))
		}
		p.mu.Unlock()
	}
	const name = "no peer takes more memory than it may"
	if most == 0 {
		w.promise(name, nil, "this system does not tell", "")
		return
	}
	w.promise(name, listed(found), "", fmt.Sprintf("at most %s, %s allowed", bytesText(most), bytesText(limit)))
}
