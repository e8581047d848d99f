package exchange

import "github.com/shoal-os/shoal/storage/chunk/bitfield"

// expect notes what a seed was asked for, and has fellows told at once: they may
// be about to ask for the same.
func (j *job) expect(r bitfield.Run) {
	j.mu.Lock()
	if j.expected == nil {
		j.expected = bitfield.New(len(j.tree.Leaves))
	}
	j.expected.SetRun(r)
	j.mu.Unlock()
	j.swarm.up.wake(j.root)
}

// expectedSince returns what seeds were asked for that is not in old, and adds
// it to old. Any goroutine.
func (j *job) expectedSince(old *bitfield.Bitfield) []bitfield.Run {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.expected == nil || j.expected.Len() != old.Len() {
		return nil
	}
	return j.expected.RunsSince(old, runsMax)
}
