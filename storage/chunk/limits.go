package chunk

import (
	"cmp"
	"math"
)

// Limits says how large a tree may be. They hold for the expanded tree, in which a node
// that occurs a thousand times counts a thousand times, because that is what takes
// memory at the receiver; a few kilobytes of nodes can expand without end. A zero field
// means its default.
type Limits struct {
	Depth     int   // folders inside folders
	Entries   int   // files, folders and symbolic links
	Leaves    int   // chunks
	NodeBytes int64 // bytes of distinct nodes, and nodeCost more for each
	PathBytes int64 // bytes of all paths together
}

// The default limits. A tree that reaches all of them at once takes about 450 MB, and
// its sender had to send 128 MiB of nodes for it.
const (
	DepthMax     = 256       // a path of 4 KiB could hold 2,000 folders; real trees stay under 50
	EntriesMax   = 1 << 20   // 64 bytes each: 64 MiB
	LeavesMax    = 2 << 20   // 56 bytes each: 112 MiB, a file of 2 TiB
	NodeBytesMax = 128 << 20 // a million entries, or 2 TiB in one file, need about 100 MiB
	PathBytesMax = 128 << 20 // a million paths of 128 bytes
	PathMax      = 4096      // bytes of one path: PATH_MAX of Linux
)

const (
	nodeCost     = 256 // bytes that remembering the smallest node takes, beside its own
	fileDepthMax = 8   // nodes above a leaf: enough for 2^63 bytes with the 174 links of older profiles
)

func (l Limits) withDefaults() Limits {
	return Limits{
		Depth:     cmp.Or(l.Depth, DepthMax),
		Entries:   min(cmp.Or(l.Entries, EntriesMax), math.MaxInt32), // Leaf.Entry has 32 bits
		Leaves:    min(cmp.Or(l.Leaves, LeavesMax), math.MaxInt32),
		NodeBytes: cmp.Or(l.NodeBytes, NodeBytesMax),
		PathBytes: cmp.Or(l.PathBytes, PathBytesMax),
	}
}
