package testnet

import (
	"bytes"
	"os"
	"strconv"
)

// residentOf is the memory that a process has resident, in bytes, now and at most so far; ok is false when it is gone.
func residentOf(pid int) (now, most int64, ok bool) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0, 0, false
	}
	field := func(name string) int64 {
		_, rest, found := bytes.Cut(data, []byte("\n"+name+":"))
		if !found {
			return 0
		}
		line, _, _ := bytes.Cut(rest, []byte(" kB"))
		n, _ := strconv.ParseInt(string(bytes.TrimSpace(line)), 10, 64)
		return n << 10
	}
	return field("VmRSS"), field("VmHWM"), true
}
