//go:build !amd64 || purego

package pair

const fast = false

func blocks(x, y *[8]uint32, p, q *byte, n int) { panic("pair: no such instructions") }
