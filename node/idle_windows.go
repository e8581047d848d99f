package node

import (
	"time"
	"unsafe"

	"golang.org/x/sys/windows"
)

// canTellIdle: this system tells when it was last touched.
const canTellIdle = true

var (
	user32            = windows.NewLazySystemDLL("user32.dll")
	procLastInputInfo = user32.NewProc("GetLastInputInfo")
	procTickCount     = kernel32.NewProc("GetTickCount")
)

// inputs finds out when somebody last touched the machine, in the session that this process runs in.
type inputs struct{}

// last returns when the machine was last touched; now, if that cannot be told.
func (inputs) last(now time.Time) time.Time {
	info := struct{ size, tick uint32 }{size: 8} // LASTINPUTINFO of winuser.h
	if ok, _, _ := procLastInputInfo.Call(uintptr(unsafe.Pointer(&info))); ok == 0 {
		return now
	}
	tick, _, _ := procTickCount.Call()
	return now.Add(-time.Duration(uint32(tick)-info.tick) * time.Millisecond)
}
