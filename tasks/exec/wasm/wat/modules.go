package wat

import (
	"encoding/binary"
	"time"
)

// Nothing is a program that does nothing.
func Nothing() []byte { return program{pages: 1}.assemble() }

// Hello writes "hello" and a line end.
func Hello() []byte {
	return program{imports: []string{"fd_write"}, pages: 1, data: text("hello\n"),
		code: append(call(0, 1, 0, 1, resultAt), opDrop)}.assemble()
}

// Exit ends with an exit code.
func Exit(code int) []byte {
	return program{imports: []string{"proc_exit"}, pages: 1, code: call(0, int64(code))}.assemble()
}

// Loop never ends and calls nobody.
func Loop() []byte { return program{pages: 1, code: forever(nil)}.assemble() }

// StartLoop never ends, before it is asked for anything.
func StartLoop() []byte { return program{pages: 1, starts: true, code: forever(nil)}.assemble() }

// Chatter calls the host without end, which makes garbage there, and never ends.
func Chatter() []byte {
	return program{imports: []string{"sched_yield"}, pages: 1, code: forever(append(call(0), opDrop))}.assemble()
}

// ChatterThenLoop calls the host n times and then never again, and never ends. It says "hello" in between.
func ChatterThenLoop(n int) []byte {
	chat := join(
		append(call(0), opDrop),
		const32(resultAt), const32(resultAt), []byte{opI32Load, 2, 0}, const32(1), []byte{opI32Add, opI32Store, 2, 0},
		const32(resultAt), []byte{opI32Load, 2, 0}, const32(int64(n)), []byte{opI32Ne, opBrIf, 0})
	return program{imports: []string{"sched_yield", "fd_write"}, pages: 1, data: text("hello\n"), code: join(
		[]byte{opLoop, blockVoid}, chat, []byte{opEnd},
		append(call(1, 1, 0, 1, 2*resultAt), opDrop), forever(nil))}.assemble()
}

// Cat copies standard input to standard output.
func Cat() []byte {
	const bytes = 4096
	read := join(
		const32(0), const32(textAt), []byte{opI32Store, 2, 0},
		const32(4), const32(bytes), []byte{opI32Store, 2, 0},
		append(call(0, 0, 0, 1, 4), opDrop)) // the count becomes the length of what is written
	ends := join(const32(4), []byte{opI32Load, 2, 0}, const32(0), []byte{opI32Eq, opIf, blockVoid}, call(2, 0), []byte{opEnd})
	write := append(call(1, 1, 0, 1, resultAt*8), opDrop)
	return program{imports: []string{"fd_read", "fd_write", "proc_exit"}, pages: 1, code: forever(join(read, ends, write))}.assemble()
}

// NapBytes is how much Nap copies at most.
const NapBytes = 1024

// Nap sleeps for d, and then copies the first NapBytes of standard input to standard output: it takes its time and no processor.
func Nap(d time.Duration) []byte {
	// A subscription to the monotonic clock: 48 bytes at 0 with the clock's number at 16 and the time in nanoseconds at 24.
	data := make([]byte, 48)
	binary.LittleEndian.PutUint32(data[16:], 1)
	binary.LittleEndian.PutUint64(data[24:], uint64(d))
	sleep := append(call(2, 0, resultAt, 1, 2*resultAt), opDrop)
	vector := join(const32(0), const32(textAt), []byte{opI32Store, 2, 0}, const32(4), const32(NapBytes), []byte{opI32Store, 2, 0})
	read := append(call(0, 0, 0, 1, 4), opDrop) // the count becomes the length of what is written
	write := append(call(1, 1, 0, 1, resultAt*8), opDrop)
	return program{imports: []string{"fd_read", "fd_write", "poll_oneoff"}, pages: 1, data: data, code: join(sleep, vector, read, write)}.assemble()
}

// Trap traps.
func Trap() []byte { return program{pages: 1, code: []byte{opUnreachable}}.assemble() }

// Recurse calls itself without end.
func Recurse() []byte { return program{pages: 1, code: call(0)}.assemble() }

// Grow takes more and more memory and traps when there is no more.
func Grow() []byte {
	return program{pages: 1, code: forever(join(
		const32(16), []byte{opMemoryGrow, 0}, const32(-1), []byte{opI32Eq, opIf, blockVoid, opUnreachable, opEnd},
	))}.assemble()
}

// Large has many pages of memory from the start.
func Large(pages int) []byte { return program{pages: uint32(pages)}.assemble() }

// Shout writes without end.
func Shout() []byte {
	return program{imports: []string{"fd_write"}, pages: 1, data: text("shoal shoal shoal shoal shoal shoal shoal shoal shoal shoal\n"),
		code: forever(append(call(0, 1, 0, 1, resultAt), opDrop))}.assemble()
}

// Library has no entry.
func Library() []byte { return program{pages: 1, library: true}.assemble() }

// Needs imports a function from a module of any name.
func Needs(module, function string) []byte {
	return program{pages: 1, needs: [2]string{module, function}}.assemble()
}

// Tables makes its table larger and larger, which is memory too, and traps when it may not.
func Tables() []byte {
	return program{pages: 1, table: true, code: forever(join(
		[]byte{opRefNull, funcRef}, const32(1<<20), []byte{0xfc, 15, 0}, const32(-1), []byte{opI32Eq, opIf, blockVoid, opUnreachable, opEnd},
	))}.assemble()
}

// Huge has a start function of n instructions.
func Huge(n int) []byte {
	code := make([]byte, 0, 3*n)
	for range n {
		code = append(code, opI32Const, 1, opDrop)
	}
	return program{pages: 1, starts: true, code: code}.assemble()
}

// rightsAll asks for every right of a file.
const rightsAll = 0x1fffffff

// Open opens a path below the root for writing or reading, makes it if it is to be written, and ends with the error's number
// of WASI, or 0.
func Open(path string, create bool) []byte {
	flags, rights := int64(0), int64(1<<1|1<<2) // fd_read, fd_seek
	if create {
		flags, rights = 1, rightsAll
	}
	return program{imports: []string{"path_open", "proc_exit"}, pages: 1, data: text(path),
		code: join(open(0, len(path), flags, rights), []byte{opCall, 1})}.assemble()
}

func open(f byte, length int, flags, rights int64) []byte {
	return join(const32(3), const32(1), const32(textAt), const32(int64(length)), const32(flags),
		const64(rights), const64(rights), const32(0), const32(resultAt), []byte{opCall, f})
}

// Fill writes a file without end.
func Fill(path string) []byte {
	return program{imports: []string{"path_open", "fd_write"}, pages: 2, data: text(path), code: join(
		open(0, len(path), 1, rightsAll), []byte{opDrop},
		const32(4), const32(1<<16), []byte{opI32Store, 2, 0},
		forever(join(const32(resultAt), []byte{opI32Load, 2, 0}, const32(0), const32(1), const32(resultAt+8), []byte{opCall, 1, opDrop})),
	)}.assemble()
}

// Symlink makes a symbolic link and ends with the error's number of WASI, or 0.
func Symlink(to, at string) []byte {
	return program{imports: []string{"path_symlink", "proc_exit"}, pages: 1, data: text(to + at), code: join(
		const32(textAt), const32(int64(len(to))), const32(3), const32(int64(textAt+len(to))), const32(int64(len(at))),
		[]byte{opCall, 0, opCall, 1})}.assemble()
}
