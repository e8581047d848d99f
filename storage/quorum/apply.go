package quorum

import (
	"fmt"
	"sync"

	"github.com/shoal-os/shoal/storage/quorum/replica"
)

// applier gives a group's machine what was agreed on, on a goroutine that lives only while there is something to do.
type applier struct {
	machineMu sync.Mutex // held while the machine is at work
	machine   Machine

	mu       sync.Mutex
	idle     sync.Cond // busy became false
	batches  []replica.Batch
	snapshot bool   // one is wanted after them
	tidy     uint64 // snapshots before this one are to be deleted
	busy     bool
	over     bool
	at       replica.Batch // the last one that was applied
}

func (a *applier) init(m Machine) {
	a.machine = m
	a.idle.L = &a.mu
}

func (a *applier) stop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.over = true
	a.batches = nil
}

// wait waits until the goroutine has ended, after stop.
func (a *applier) wait() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.busy {
		a.idle.Wait()
	}
}

// apply hands batches to the machine.
func (g *Group) apply(batches []replica.Batch, snapshot bool) {
	if len(batches) == 0 && !snapshot {
		return
	}
	a := &g.applier
	a.mu.Lock()
	defer a.mu.Unlock()
	a.batches = append(a.batches, batches...)
	a.snapshot = a.snapshot || snapshot
	g.runApplier()
}

// wantTidy has snapshots deleted that are older than one.
func (g *Group) wantTidy(index uint64) {
	a := &g.applier
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tidy = max(a.tidy, index)
	g.runApplier()
}

// runApplier starts the goroutine if it does not run; the applier is locked.
func (g *Group) runApplier() {
	if a := &g.applier; !a.busy && !a.over {
		a.busy = true
		go g.runMachine()
	}
}

// runMachine does what there is to do.
func (g *Group) runMachine() {
	a := &g.applier
	for {
		a.mu.Lock()
		batches, snapshot, tidy := a.batches, a.snapshot, a.tidy
		a.batches, a.snapshot, a.tidy = nil, false, 0
		if a.over || len(batches) == 0 && !snapshot && tidy == 0 {
			a.busy = false
			a.idle.Broadcast()
			a.mu.Unlock()
			return
		}
		a.mu.Unlock()
		if len(batches) > 0 && !g.runBatches(batches) {
			continue // it is over
		}
		if snapshot {
			g.makeSnapshot()
		}
		if tidy > 0 {
			g.e.removeSnapshots(g.id, tidy)
		}
	}
}

func (g *Group) runBatches(batches []replica.Batch) bool {
	a := &g.applier
	for _, b := range batches {
		if err := g.runBatch(b); err != nil {
			g.e.log.Error("quorum: a machine stopped", "group", g.id, "kind", g.kind, "err", err)
			g.stepMu.Lock()
			g.broken = fmt.Errorf("quorum: the machine of group %v: %w", g.id, err)
			g.stepMu.Unlock()
			g.stop()
			return false
		}
		a.at = b
	}
	g.post(replica.Applied{Seq: a.at.Seq})
	return true
}

func (g *Group) runBatch(b replica.Batch) error {
	a := &g.applier
	if b.Restore {
		return g.restore(b)
	}
	results := make([][]byte, len(b.Commands))
	a.machineMu.Lock()
	for i, c := range b.Commands {
		data := c.Data
		if data == nil {
			data = []byte{}
		}
		results[i] = a.machine.Apply(Entry{Index: c.Index, Term: c.Term, Data: data})
	}
	a.machineMu.Unlock()
	for i, c := range b.Commands {
		g.requests.end(c.ID, outcome{result: results[i]})
	}
	return nil
}

// restore makes the machine what a snapshot of another replica holds, which is on disk already.
func (g *Group) restore(b replica.Batch) error {
	a := &g.applier
	if b.Fresh {
		return nil // it is fresh: nothing was ever applied to it, or there would be a snapshot with bytes
	}
	data, err := g.e.readSnapshot(g.id, b.Index)
	if err != nil {
		return err
	}
	a.machineMu.Lock()
	defer a.machineMu.Unlock()
	return a.machine.Restore(data)
}

// makeSnapshot makes a snapshot of the machine as it is after the last batch.
func (g *Group) makeSnapshot() {
	a := &g.applier
	done := replica.Snapshotted{Index: a.at.Index, Term: a.at.Term, Book: a.at.Book}
	if a.at.Seq > 0 {
		size, err := g.writeSnapshot(a.at.Index)
		if err != nil {
			g.e.log.Warn("quorum: no snapshot", "group", g.id, "kind", g.kind, "err", err)
		}
		done.OK, done.Size = err == nil, size
	}
	g.post(done)
}

func (g *Group) writeSnapshot(index uint64) (size int, err error) {
	a := &g.applier
	a.machineMu.Lock()
	data, err := a.machine.Snapshot()
	a.machineMu.Unlock()
	switch {
	case err != nil:
		return 0, err
	case len(data) > SnapshotMax:
		return 0, fmt.Errorf("a snapshot of %d bytes: %w", len(data), ErrTooLarge)
	}
	return len(data), g.e.storeSnapshot(g.id, index, data)
}
