package node

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shoal-os/shoal/dht/roster"
)

// memory is the machine's, in bytes; 0 if it cannot be told.
func memory() int64 {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0
	}
	return int64(uint64(info.Totalram) * uint64(info.Unit))
}

// powerDir is where the kernel lists what the machine runs on (Documentation/ABI/testing/sysfs-class-power).
const powerDir = "/sys/class/power_supply"

func power() (roster.Power, uint8) { return powerIn(powerDir) }

// powerIn reads batteries and mains adapters below a folder. A machine without a battery runs on mains; a battery that is
// not discharging says that there is mains, whatever the adapter's driver claims.
func powerIn(dir string) (roster.Power, uint8) {
	supplies, err := os.ReadDir(dir)
	if err != nil {
		return roster.PowerUnknown, 0
	}
	online, battery, draining, level := false, false, false, 0
	for _, s := range supplies {
		field := func(name string) string {
			data, _ := os.ReadFile(filepath.Join(dir, s.Name(), name)) // a field that is not there is ""
			return strings.TrimSpace(string(data))
		}
		switch {
		case field("type") == "Battery" && field("scope") != "Device": // the battery of a mouse is not ours
			battery = true
			draining = draining || field("status") == "Discharging"
			n, _ := strconv.Atoi(field("capacity"))
			level = max(level, n)
		case field("type") == "Mains" || field("type") == "USB":
			online = online || field("online") == "1"
		}
	}
	if battery && (draining || !online && level < 100) {
		return roster.PowerBattery, uint8(min(level, 100))
	}
	return roster.PowerMains, 0
}
