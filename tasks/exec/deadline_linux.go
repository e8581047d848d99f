package exec

import (
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// deadline stops this process at a reading of the boot-time clock. The kernel does it: a timer whose signal is SIGSTOP, which
// needs no turn of Go's scheduler and comes right after a sleep in which it was missed. Whoever continues the process sets a
// new one first.
type deadline struct {
	id    int32
	made  bool
	armed bool
}

// sigevent is what timer_create takes, see sigevent(7): a word, the signal, how, and padding to 64 bytes.
type sigevent struct {
	value  uintptr
	signo  int32
	notify int32
	_      [48]byte
}

// set moves the deadline; 0 is none.
func (d *deadline) set(t time.Duration) {
	if t <= 0 && !d.armed {
		return
	}
	if !d.made {
		ev := sigevent{signo: int32(unix.SIGSTOP)} // notify 0 is SIGEV_SIGNAL
		if _, _, e := unix.Syscall(unix.SYS_TIMER_CREATE, unix.CLOCK_BOOTTIME, uintptr(unsafe.Pointer(&ev)), uintptr(unsafe.Pointer(&d.id))); e != 0 {
			panic(fmt.Errorf("timer_create: %w", e)) // any Linux has it; a child that cannot keep its time may not run
		}
		d.made = true
	}
	d.armed = t > 0
	it := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(max(t, 0)))}
	const absolute = 1 // TIMER_ABSTIME
	if _, _, e := unix.Syscall6(unix.SYS_TIMER_SETTIME, uintptr(d.id), absolute, uintptr(unsafe.Pointer(&it)), 0, 0, 0); e != 0 {
		panic(fmt.Errorf("timer_settime: %w", e))
	}
}
