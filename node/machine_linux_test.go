package node

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/shoal-os/shoal/dht/roster"
)

func TestPower(t *testing.T) {
	type supply map[string]string
	mains := func(online string) supply { return supply{"type": "Mains", "online": online} }
	battery := func(status, capacity string) supply {
		return supply{"type": "Battery", "status": status, "capacity": capacity}
	}
	for name, c := range map[string]struct {
		supplies map[string]supply
		want     roster.Power
		level    uint8
	}{
		"a desktop":             {map[string]supply{}, roster.PowerMains, 0},
		"a plugged laptop":      {map[string]supply{"AC": mains("1"), "BAT0": battery("Charging", "50")}, roster.PowerMains, 0},
		"a full laptop":         {map[string]supply{"AC": mains("1"), "BAT0": battery("Full", "100")}, roster.PowerMains, 0},
		"a laptop on a lap":     {map[string]supply{"AC": mains("0"), "BAT0": battery("Discharging", "42")}, roster.PowerBattery, 42},
		"a tablet":              {map[string]supply{"usb": {"type": "USB", "online": "0"}, "battery": battery("Discharging", "7")}, roster.PowerBattery, 7},
		"a mouse's battery":     {map[string]supply{"hid": {"type": "Battery", "scope": "Device", "status": "Discharging", "capacity": "9"}}, roster.PowerMains, 0},
		"nonsense in its files": {map[string]supply{"BAT0": battery("Discharging", "plenty")}, roster.PowerBattery, 0},
	} {
		dir := t.TempDir()
		for supply, fields := range c.supplies {
			if err := os.Mkdir(filepath.Join(dir, supply), 0o700); err != nil {
				t.Fatal(err)
			}
			for field, value := range fields {
				if err := os.WriteFile(filepath.Join(dir, supply, field), []byte(value+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
		if power, level := powerIn(dir); power != c.want || level != c.level {
			t.Errorf("%s: %s, %d", name, power, level)
		}
	}
	if power, _ := powerIn(filepath.Join(t.TempDir(), "absent")); power != roster.PowerUnknown {
		t.Errorf("where the kernel says nothing: %s", power)
	}
}
