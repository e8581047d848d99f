package wasm

import "golang.org/x/sys/unix"

// dontneedZeroes: on Linux memory that was given back is zeros when it is touched again, see madvise(2).
const dontneedZeroes = true

// limitData bounds the writable memory of this process. It is the net below all other limits: what passes it ends the child,
// not the machine.
func limitData(n uint64) {
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_DATA, &l) == nil && l.Cur != n {
		l.Cur = min(n, l.Max)
		_ = unix.Setrlimit(unix.RLIMIT_DATA, &l)
	}
}
