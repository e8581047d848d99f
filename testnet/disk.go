package testnet

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/shoal-os/shoal/testnet/script"
)

// DiskCommand is the hidden command of the program that RunDisk is behind.
const DiskCommand = "testnet-disk"

// disk is what a peer's home lies on, where its scenario has disks that are full or slow.
type disk struct {
	given bool
	// under is the folder that holds what is in the home: the home itself, or, where the disk can be slow, another that the
	// home passes everything on to.
	under   string
	small   bool  // under is a file system of its own, that can be full
	noSmall error // why it is not
	slow    *slowDisk
	noSlow  error // why there is none
}

// giveDisk gives a peer a disk of its own before its first start. What the scenario does not need, it does not get.
func (p *peer) giveDisk() error {
	d, plan := &p.disk, p.w.plan
	if d.given {
		return nil
	}
	d.given = true
	full, slow := plan.HasDisk("full"), plan.HasDisk("slow")
	if slow {
		if err := d.lay(filepath.Join(filepath.Dir(p.home), "disk"), full); err != nil {
			return err
		}
		if d.slow, d.noSlow = startSlow(p.w.cfg.Binary, p.home, d.under); d.noSlow == nil {
			return nil
		}
		// Where disks cannot be slow the home is what it is without.
		if err := p.takeDisk(); err != nil {
			return err
		}
	}
	return d.lay(p.home, full)
}

// lay makes the folder that everything is in, small if it is to be, and if that can be had.
func (d *disk) lay(under string, small bool) error {
	if err := os.MkdirAll(under, 0o700); err != nil {
		return err
	}
	d.under = under
	if small {
		d.noSmall = mountDisk(under)
		d.small = d.noSmall == nil
	}
	return nil
}

// takeDisk takes it away again, with all that is on it if that was memory.
func (p *peer) takeDisk() error {
	d := &p.disk
	var errs []error
	if d.slow != nil {
		errs = append(errs, d.slow.close())
		d.slow = nil
	}
	if d.small {
		errs = append(errs, unmountDisk(d.under))
		d.small = false
	}
	return errors.Join(errs...)
}

// set makes the disk full or slow, or ends that. What cannot be done here is a skipped error.
func (d *disk) set(kind string, on bool) error {
	switch {
	case kind == "full" && d.noSmall != nil:
		return skipped{d.noSmall.Error()}
	case kind == "slow" && d.noSlow != nil:
		return skipped{d.noSlow.Error()}
	case kind == "full" && d.small && on:
		return fillDisk(d.under)
	case kind == "full" && d.small:
		return freeDisk(d.under)
	case kind == "slow" && d.slow != nil:
		return d.slow.set(on)
	}
	return nil // the scenario has no such disks, and this ends what never was
}

// ok makes the disk what it was at first.
func (d *disk) ok() error { return errors.Join(d.set("full", false), d.set("slow", false)) }

// setDisks makes disks what the step says, or ends that again.
func (w *world) setDisks(a script.Action, on bool) error {
	return w.each(a.Peers, len(a.Peers), func(p *peer) error {
		p.changing.Lock()
		defer p.changing.Unlock()
		switch {
		case !p.disk.given:
			return skipped{p.name + " was never started"}
		case a.Arg == "ok":
			return p.disk.ok()
		}
		return p.disk.set(a.Arg, on)
	})
}

// endDisk ends what a disk suffers from, where it can suffer.
func (p *peer) endDisk() error {
	p.changing.Lock()
	defer p.changing.Unlock()
	var skip skipped
	if err := p.disk.ok(); err != nil && !errors.As(err, &skip) {
		return fmt.Errorf("the disk of %s: %w", p.name, err)
	}
	return nil
}
