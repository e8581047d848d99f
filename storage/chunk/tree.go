package chunk

// Kind is what an entry of a tree is.
type Kind uint8

// The kinds of entry.
const (
	File Kind = iota
	Dir
	Symlink
)

// String gives the kind as one lower-case word.
func (k Kind) String() string {
	switch k {
	case File:
		return "file"
	case Dir:
		return "dir"
	case Symlink:
		return "symlink"
	default:
		return "unknown kind"
	}
}

// Entry is one file, folder or symbolic link of a tree.
type Entry struct {
	Path   string // slash-separated, relative to the root; "" is the root itself
	Target string // of a symbolic link, as stored: may point anywhere
	Size   int64  // bytes of a file, -1 unknown (only for a raw root); 0 for the other kinds
	First  int    // its leaves are Tree.Leaves[First : First+Count]
	Count  int    // an empty file has none: there is nothing to fetch
	Kind   Kind
}

// Leaf is one chunk of one file. That its bytes have this CID does not yet mean that
// there are Size of them: whoever fetches it must check both, and a length that differs
// under a right hash is a fault of the tree (ErrTree), not of the sender.
type Leaf struct {
	CID    CID
	Entry  int32 // index into Tree.Entries
	Size   int32 // bytes; -1 unknown, only for a raw root
	Offset int64 // where in the file it begins
}

// Tree is a root, expanded. Entries are in walk order: depth first, a folder before
// what is in it, links in the order in which nodes store them. Leaves are numbered in
// the same order. Both ends of a transfer derive the same numbers from the same root.
type Tree struct {
	Root      CID
	Entries   []Entry
	Leaves    []Leaf
	Size      int64 // bytes of all files together, repeated ones counted each time; -1 unknown, only for a raw root
	NodeBytes int64 // bytes of the distinct nodes
	Files     int
	Dirs      int
	Symlinks  int
}
