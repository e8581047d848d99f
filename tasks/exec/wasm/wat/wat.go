// Package wat assembles tiny WebAssembly modules, good and bad, for tests: each is some dozen bytes whose source is the Go
// beside it, so that no tool and no binary file is needed. It is for tests, benches and the testnet.
package wat

import "encoding/binary"

// Op codes that are used here, see the core specification, appendix "Index of Instructions".
const (
	opUnreachable = 0x00
	opLoop        = 0x03
	opIf          = 0x04
	opEnd         = 0x0b
	opBr          = 0x0c
	opBrIf        = 0x0d
	opCall        = 0x10
	opDrop        = 0x1a
	opMemoryGrow  = 0x40
	opI32Const    = 0x41
	opI64Const    = 0x42
	opI32Eq       = 0x46
	opI32Ne       = 0x47
	opI32Add      = 0x6a
	opI32Load     = 0x28
	opI32Store    = 0x36
	opRefNull     = 0xd0

	blockVoid = 0x40
	typeI32   = 0x7f
	typeI64   = 0x7e
	funcRef   = 0x70
)

// signature is a function type of the imports that programs use here.
type signature struct{ params, results []byte }

var (
	i32        = byte(typeI32)
	i64        = byte(typeI64)
	start      = signature{}
	signatures = map[string]signature{
		"proc_exit":    {[]byte{i32}, nil},
		"fd_write":     {[]byte{i32, i32, i32, i32}, []byte{i32}},
		"fd_read":      {[]byte{i32, i32, i32, i32}, []byte{i32}},
		"fd_close":     {[]byte{i32}, []byte{i32}},
		"path_open":    {[]byte{i32, i32, i32, i32, i32, i64, i64, i32, i32}, []byte{i32}},
		"path_symlink": {[]byte{i32, i32, i32, i32, i32}, []byte{i32}},
		"sched_yield":  {nil, []byte{i32}},
		"poll_oneoff":  {[]byte{i32, i32, i32, i32}, []byte{i32}},
	}
)

// program is what a module is made of. Its one function of its own, after the imports, is exported as _start.
type program struct {
	imports []string // of WASI
	needs   [2]string
	pages   uint32
	table   bool
	library bool // exports nothing
	starts  bool // the function is the start function too
	data    []byte
	code    []byte
}

func uleb(n uint64) []byte { return binary.AppendUvarint(nil, n) }

// sleb is a signed number in LEB128.
func sleb(n int64) (out []byte) {
	for {
		b := byte(n & 0x7f)
		n >>= 7
		if n == 0 && b&0x40 == 0 || n == -1 && b&0x40 != 0 {
			return append(out, b)
		}
		out = append(out, b|0x80)
	}
}

func name(s string) []byte { return append(uleb(uint64(len(s))), s...) }

func section(id byte, items ...[]byte) []byte {
	body := uleb(uint64(len(items)))
	for _, it := range items {
		body = append(body, it...)
	}
	return append(append([]byte{id}, uleb(uint64(len(body)))...), body...)
}

func (s signature) encode() []byte {
	out := append([]byte{0x60}, uleb(uint64(len(s.params)))...)
	out = append(out, s.params...)
	return append(append(out, uleb(uint64(len(s.results)))...), s.results...)
}

func (p program) assemble() []byte {
	types := [][]byte{start.encode()}
	var imports [][]byte
	for i, f := range p.imports {
		types = append(types, signatures[f].encode())
		imports = append(imports, append(append(append(name("wasi_snapshot_preview1"), name(f)...), 0), uleb(uint64(i+1))...))
	}
	if p.needs[0] != "" {
		imports = append(imports, append(append(name(p.needs[0]), name(p.needs[1])...), 0, 0))
	}
	own := byte(len(imports))
	out := append([]byte("\x00asm\x01\x00\x00\x00"), section(1, types...)...)
	if len(imports) > 0 {
		out = append(out, section(2, imports...)...)
	}
	out = append(out, section(3, []byte{0})...)
	if p.table {
		out = append(out, section(4, []byte{funcRef, 0, 0})...)
	}
	out = append(out, section(5, append([]byte{0}, uleb(uint64(p.pages))...))...)
	if !p.library {
		out = append(out, section(7, append(name("_start"), 0, own), append(name("memory"), 2, 0))...)
	}
	if p.starts {
		out = append(out, 8, 1, own)
	}
	body := append(append([]byte{0}, p.code...), opEnd) // no locals
	out = append(out, section(10, append(uleb(uint64(len(body))), body...))...)
	if len(p.data) > 0 {
		out = append(out, section(11, append(append([]byte{0, opI32Const, 0, opEnd}, uleb(uint64(len(p.data)))...), p.data...))...)
	}
	return out
}

func join(parts ...[]byte) (out []byte) {
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

func const32(n int64) []byte { return append([]byte{opI32Const}, sleb(n)...) }
func const64(n int64) []byte { return append([]byte{opI64Const}, sleb(n)...) }

func call(f byte, args ...int64) []byte {
	var out []byte
	for _, a := range args {
		out = append(out, const32(a)...)
	}
	return append(out, opCall, f)
}

func forever(code []byte) []byte {
	return join([]byte{opLoop, blockVoid}, code, []byte{opBr, 0, opEnd})
}

// text puts one vector of bytes at 0 that names the text after it.
func text(s string) []byte {
	out := binary.LittleEndian.AppendUint32(nil, textAt)
	out = binary.LittleEndian.AppendUint32(out, uint32(len(s)))
	return append(out, s...)
}

// textAt is where text's bytes begin.
const textAt = 8

// resultAt is where calls put their second result.
const resultAt = 1024
