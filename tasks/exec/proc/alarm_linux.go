package proc

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Alarm calls a function at a reading of the boot-time clock, which counts sleep.
type Alarm struct{ fd int }

// NewAlarm makes one that is not set. It stays as long as the process.
func NewAlarm(ring func()) *Alarm {
	fd, err := unix.TimerfdCreate(unix.CLOCK_BOOTTIME, unix.TFD_CLOEXEC)
	if err != nil {
		panic(fmt.Errorf("timerfd_create: %w", err)) // any Linux has it
	}
	go func() {
		var count [8]byte
		for {
			if _, err := unix.Read(fd, count[:]); err == nil {
				ring()
			}
		}
	}()
	return &Alarm{fd}
}

// Set moves the time; 0 is none.
func (a *Alarm) Set(t time.Duration) {
	it := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(max(t, 0)))}
	if err := unix.TimerfdSettime(a.fd, unix.TFD_TIMER_ABSTIME, &it, nil); err != nil {
		panic(fmt.Errorf("timerfd_settime: %w", err))
	}
}
