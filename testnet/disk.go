package testnet

import (
	"context"

	"github.com/shoal-os/shoal/testnet/script"
)

// giveDisk gives a peer a disk of its own before its first start, where the scenario has disks that are full.
func (p *peer) giveDisk() {
	if p.started || p.mounted || p.noDisk != nil || !p.w.plan.Has("disk") {
		return
	}
	p.noDisk = mountDisk(p.home)
	p.mounted = p.noDisk == nil
}

// takeDisk takes it away again, with all that is on it.
func (p *peer) takeDisk() error {
	if !p.mounted {
		return nil
	}
	p.mounted = false
	return unmountDisk(p.home)
}

// disk makes disks full, or gives back what fills them.
func (w *world) disk(_ context.Context, a script.Action) error {
	if a.Arg == "slow" {
		return skipped{"a disk cannot be slowed down here"}
	}
	return w.each(a.Peers, len(a.Peers), func(p *peer) error {
		p.changing.Lock()
		defer p.changing.Unlock()
		switch {
		case !p.mounted && p.noDisk != nil:
			return skipped{p.noDisk.Error()}
		case !p.mounted:
			return skipped{p.name + " was never started"}
		case a.Arg == "full":
			return fillDisk(p.home)
		}
		return freeDisk(p.home)
	})
}
