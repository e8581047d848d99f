package node

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// canTellIdle: this system tells when it was last touched.
const canTellIdle = true

// inputs finds out when somebody last touched the machine, from what every process may read:
//   - terminals, of the console and of ssh, whose time of access the kernel sets when something is typed;
//   - the interrupts of keyboards and touchpads that have a line of their own (i8042 and HID over I²C, as in most laptops),
//     which are counted in /proc/interrupts.
//
// A USB keyboard shares its interrupts with all of USB. What is typed on one into a graphical session is not seen here; whether
// such a session is idle is the session manager's to say, see logind.
type inputs struct {
	dev, proc string // "" is /dev and /proc

	counts  string // of the interrupts, as they were last
	touched time.Time
}

// last returns when the machine was last touched, as far as can be told.
func (in *inputs) last(now time.Time) time.Time {
	if in.dev == "" {
		in.dev, in.proc = "/dev", "/proc"
	}
	last := in.typed()
	data, _ := os.ReadFile(filepath.Join(in.proc, "interrupts")) // without it there is no change in it
	if counts := inputCounts(data); counts != in.counts {
		if in.counts = counts; in.touched.IsZero() {
			in.touched = now.Add(-idleAfter) // the first look tells nothing
		} else {
			in.touched = now
		}
	}
	if in.touched.After(last) {
		last = in.touched
	}
	return last
}

// typed is when something was last typed into a terminal.
func (in *inputs) typed() (last time.Time) {
	for _, pattern := range []string{"tty[0-9]*", "pts/[0-9]*"} {
		names, _ := filepath.Glob(filepath.Join(in.dev, pattern)) // the pattern is a good one
		for _, name := range names {
			var st unix.Stat_t
			if unix.Stat(name, &st) != nil {
				continue
			}
			if at := time.Unix(st.Atim.Unix()); at.After(last) {
				last = at
			}
		}
	}
	return last
}

// inputCounts picks the lines of keyboards and touchpads out of /proc/interrupts.
func inputCounts(data []byte) string {
	var b strings.Builder
	for line := range bytes.Lines(data) {
		if isInput(string(line)) {
			b.Write(line)
		}
	}
	return b.String()
}

// isInput: i8042 is the keyboard's controller; devices of HID over I²C hang on a pin of their own and are called by their ACPI
// ids, as ELAN0412:00.
func isInput(line string) bool {
	fields := strings.Fields(line)
	if len(fields) == 0 {
		return false
	}
	name := fields[len(fields)-1]
	id, number, ok := strings.Cut(name, ":")
	return name == "i8042" || ok && len(number) == 2 && len(id) >= 7 && strings.ToUpper(id) == id && strings.Contains(line, "gpio")
}
