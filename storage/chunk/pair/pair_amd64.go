//go:build !purego

package pair

// fast says that the processor has what blocks needs.
var fast = hasSHA()

func hasSHA() bool {
	const (
		ssse3, sse41 = 1 << 9, 1 << 19 // of leaf 1, ECX
		sha          = 1 << 29         // of leaf 7, EBX
	)
	// A leaf beyond the last is answered with the last one's bits, which mean something else.
	if last, _, _ := cpuid(0, 0); last < 7 {
		return false
	}
	_, _, features := cpuid(1, 0)
	_, extended, _ := cpuid(7, 0)
	return features&ssse3 != 0 && features&sse41 != 0 && extended&sha != 0
}

// blocks takes n blocks of 64 bytes from p into the state x, and as many from q into y.
//
//go:noescape
func blocks(x, y *[8]uint32, p, q *byte, n int)

// cpuid is the instruction of that name.
//
//go:noescape
func cpuid(leaf, sub uint32) (eax, ebx, ecx uint32)
