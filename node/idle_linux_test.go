package node

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestIdleFromTerminalsAndInterrupts(t *testing.T) {
	dev, proc := t.TempDir(), t.TempDir()
	interrupts := func(keyboard, touchpad, disk string) {
		text := "            CPU0       CPU1\n" +
			"   1:          0     " + keyboard + "   IO-APIC    1-edge      i8042\n" +
			"  16:          0     " + disk + "   IO-APIC   16-fasteoi   xhci_hcd:usb1\n" +
			"  14:          0        99   IO-APIC   14-fasteoi   INT34BB:00\n" +
			" 130:          0     " + touchpad + "   intel-gpio   50  ELAN0412:00\n" +
			" NMI:          5          5   Non-maskable interrupts\n"
		if err := os.WriteFile(filepath.Join(proc, "interrupts"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	in := inputs{dev: dev, proc: proc}
	now := time.Now()
	ago := func() time.Duration { now = now.Add(time.Minute); return now.Sub(in.last(now)) }

	interrupts("10", "10", "10")
	if d := ago(); d < idleAfter {
		t.Errorf("the first look says that it was touched %v ago", d)
	}
	interrupts("10", "10", "999") // a disk on USB is nobody
	if d := ago(); d < idleAfter {
		t.Errorf("a disk counts as a hand: %v", d)
	}
	interrupts("11", "10", "999")
	if d := ago(); d != 0 {
		t.Errorf("a key was pressed %v ago", d)
	}
	interrupts("11", "11", "999")
	if d := ago(); d != 0 {
		t.Errorf("the touchpad was touched %v ago", d)
	}
	if d := ago(); d != time.Minute {
		t.Errorf("a minute later it is %v", d)
	}

	tty := filepath.Join(dev, "tty1")
	if err := os.WriteFile(tty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	typed := now.Add(30 * time.Second).Truncate(time.Second)
	if err := os.Chtimes(tty, typed, typed); err != nil {
		t.Fatal(err)
	}
	if got := in.last(now.Add(time.Hour)); !got.Equal(typed) {
		t.Errorf("typed at %v, and told is %v", typed, got)
	}
}

func TestIdleIsAskedNowAndThen(t *testing.T) {
	w := idleWatch{inputs: inputs{dev: t.TempDir(), proc: t.TempDir()}}
	if !w.idle() {
		t.Error("nobody was ever seen, and it counts as in use")
	}
}
