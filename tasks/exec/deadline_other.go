//go:build !linux

package exec

import (
	"time"

	"github.com/shoal-os/shoal/tasks/exec/proc"
)

// deadline stops this process at a reading of the boot-time clock.
type deadline struct{ alarm *proc.Alarm }

// set moves the deadline; 0 is none.
func (d *deadline) set(t time.Duration) {
	if d.alarm == nil {
		d.alarm = proc.NewAlarm(stopSelf)
	}
	d.alarm.Set(t)
}
