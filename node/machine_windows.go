package node

import (
	"unsafe"

	"golang.org/x/sys/windows"

	"github.com/shoal-os/shoal/dht/roster"
)

var (
	kernel32         = windows.NewLazySystemDLL("kernel32.dll")
	procMemoryStatus = kernel32.NewProc("GlobalMemoryStatusEx")
	procPowerStatus  = kernel32.NewProc("GetSystemPowerStatus")
)

// memoryStatus is MEMORYSTATUSEX of sysinfoapi.h.
type memoryStatus struct {
	length, load                                 uint32
	total, available, pageTotal, pageAvailable   uint64
	virtualTotal, virtualAvailable, virtualOther uint64
}

// memory is the machine's, in bytes; 0 if it cannot be told.
func memory() int64 {
	s := memoryStatus{}
	s.length = uint32(unsafe.Sizeof(s))
	if ok, _, _ := procMemoryStatus.Call(uintptr(unsafe.Pointer(&s))); ok == 0 {
		return 0
	}
	return int64(s.total)
}

// powerStatus is SYSTEM_POWER_STATUS of winbase.h.
type powerStatus struct {
	line, flag, percent, saver byte
	life, fullLife             uint32
}

func power() (roster.Power, uint8) {
	var s powerStatus
	if ok, _, _ := procPowerStatus.Call(uintptr(unsafe.Pointer(&s))); ok == 0 {
		return roster.PowerUnknown, 0
	}
	switch s.line {
	case 0:
		return roster.PowerBattery, min(s.percent, 100)
	case 1:
		return roster.PowerMains, 0
	}
	return roster.PowerUnknown, 0
}
