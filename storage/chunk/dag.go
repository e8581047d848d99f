package chunk

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// The profile, unixfs-v1-2025 of IPIP-499, and what is accepted from other tools.
const (
	LeafSize       = 1 << 20   // bytes of every leaf but a file's last
	LinksMax       = 1024      // links of a node of a file
	FanOut         = 256       // links of a node of a sharded folder
	ShardThreshold = 256 << 10 // bytes of a folder's block above which the folder is sharded
	NodeMax        = 2 << 20   // bytes of the largest node that is accepted: what other tools move as one block
	LeafMax        = 2 << 20   // bytes of the largest leaf that is accepted, likewise
)

// Block is bytes and their name.
type Block struct {
	CID  CID
	Data []byte
}

// Child is a link to a file, folder or symbolic link.
type Child struct {
	Name  string
	CID   CID
	Tsize uint64 // bytes of all blocks from this one down, repeated ones counted each time, as dag-pb means it
}

// FileDAG gives the root of a file of size bytes whose leaves are all LeafSize long but
// the last, and its nodes: children before parents, the root last; a node that repeats
// the one before it is listed once. A file of at most one leaf is that leaf and has no
// nodes; an empty file may be given with no leaves or with its empty one. root.Name is
// empty. It panics if size and the number of leaves contradict each other.
func FileDAG(leaves []CID, size int64) (root Child, nodes []Block) {
	if size < 0 || int64(len(leaves)) != (size+LeafSize-1)/LeafSize && (size != 0 || len(leaves) > 1) {
		panic(fmt.Sprintf("chunk: %d leaves cannot make %d bytes", len(leaves), size))
	}
	switch len(leaves) {
	case 0:
		return Child{CID: emptyLeaf}, nil
	case 1:
		return Child{CID: leaves[0], Tsize: uint64(size)}, nil
	}
	nodes = make([]Block, 0, nodeCount(len(leaves)))
	last := size - int64(len(leaves)-1)*LeafSize
	level, nodes := packLevel(nodes, len(leaves), func(i int) part {
		if i == len(leaves)-1 {
			return part{leaves[i], uint64(last), uint64(last)}
		}
		return part{leaves[i], LeafSize, LeafSize}
	})
	for len(level) > 1 {
		below := level
		level, nodes = packLevel(nodes, len(below), func(i int) part { return below[i] })
	}
	return Child{CID: level[0].cid, Tsize: level[0].tsize}, nodes
}

// emptyLeaf is the one leaf without bytes.
var emptyLeaf = SumRaw(nil)

// part is a piece of a file: a leaf, or a node and all below it.
type part struct {
	cid   CID
	size  uint64 // bytes of the file
	tsize uint64 // bytes of blocks
}

func nodeCount(leaves int) (nodes int) {
	for n := leaves; n > 1; {
		n = (n + LinksMax - 1) / LinksMax
		nodes += n
	}
	return nodes
}

// packLevel makes the nodes above n parts, LinksMax to a node.
func packLevel(nodes []Block, n int, at func(i int) part) ([]part, []Block) {
	level := make([]part, 0, (n+LinksMax-1)/LinksMax)
	for first := 0; first < n; first += LinksMax {
		data, size, tsize := fileNode(first, min(first+LinksMax, n), at)
		b := Block{SumNode(data), data}
		if len(nodes) == 0 || nodes[len(nodes)-1].CID != b.CID {
			nodes = append(nodes, b)
		}
		level = append(level, part{b.CID, size, tsize})
	}
	return level, nodes
}

// fileNode encodes the node above parts [first, end), measured before it is written so
// that it is allocated once.
func fileNode(first, end int, at func(i int) part) (data []byte, size, tsize uint64) {
	links, sizes := 0, 0
	for i := first; i < end; i++ {
		p := at(i)
		_, wrapped := linkLen(0, p.tsize)
		links += wrapped
		sizes += 1 + protowire.SizeVarint(p.size)
		size += p.size
		tsize += p.tsize
	}
	header := 2 + 1 + protowire.SizeVarint(size) + sizes
	data = make([]byte, 0, links+1+protowire.SizeBytes(header))
	for i := first; i < end; i++ {
		p := at(i)
		data = appendLink(data, p.cid, "", "", p.tsize)
	}
	data = appendVarintField(data, tagNodeData, uint64(header))
	data = append(data, tagType, typeFile)
	data = appendVarintField(data, tagFileSize, size)
	for i := first; i < end; i++ {
		data = appendVarintField(data, tagBlockSize, at(i).size)
	}
	return data, size, tsize + uint64(len(data))
}

// SymlinkDAG gives the node of a symbolic link, which is its own root. It does not
// check the target: see CheckTarget, without which no Walker accepts the node.
func SymlinkDAG(target string) (root Child, node Block) {
	header := []byte{tagType, typeSymlink}
	header = appendBytesField(header, tagData, []byte(target))
	data := appendBytesField(nil, tagNodeData, header)
	node = Block{SumNode(data), data}
	return Child{CID: node.CID, Tsize: uint64(len(data))}, node
}

// DirDAG gives the root of a folder and its nodes, children before parents, the root
// last: one node, or a hash trie once that node would pass ShardThreshold. The order
// of children does not matter and is not changed. Errors: a name that CheckName refuses
// or that occurs twice, an undefined CID, more equal name hashes than a trie can part.
func DirDAG(children []Child) (root Child, nodes []Block, err error) {
	sorted, err := sortChildren(children)
	if err != nil {
		return Child{}, nil, fmt.Errorf("folder: %w", err)
	}
	links, tsize := 0, uint64(0)
	for i := range sorted {
		_, wrapped := linkLen(len(sorted[i].Name), sorted[i].Tsize)
		links += wrapped
		tsize += sorted[i].Tsize
	}
	size := links + len(dirHeader)
	if size > ShardThreshold {
		return shardDAG(sorted)
	}
	data := make([]byte, 0, size)
	for i := range sorted {
		data = appendLink(data, sorted[i].CID, "", sorted[i].Name, sorted[i].Tsize)
	}
	data = append(data, dirHeader...)
	b := Block{SumNode(data), data}
	return Child{CID: b.CID, Tsize: tsize + uint64(len(data))}, []Block{b}, nil
}

// dirHeader is the data field of every folder that is not sharded.
const dirHeader = "\x0a\x02\x08\x01"

// sortChildren gives children by name, checked; children itself if it is in order.
func sortChildren(children []Child) ([]Child, error) {
	inOrder := true
	for i := range children {
		if err := CheckName(children[i].Name, ""); err != nil {
			return nil, err
		}
		if !children[i].CID.Defined() {
			return nil, fmt.Errorf("entry %s has no CID", clip(children[i].Name))
		}
		inOrder = inOrder && (i == 0 || children[i-1].Name < children[i].Name)
	}
	if inOrder {
		return children, nil
	}
	sorted := slices.Clone(children)
	slices.SortFunc(sorted, func(a, b Child) int { return strings.Compare(a.Name, b.Name) })
	for i := 1; i < len(sorted); i++ {
		if sorted[i-1].Name == sorted[i].Name {
			return nil, fmt.Errorf("name %s occurs twice", clip(sorted[i].Name))
		}
	}
	return sorted, nil
}
