package chunk

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/spaolacci/murmur3"
	"google.golang.org/protobuf/encoding/protowire"
)

// hashLevels is how deep a trie can be: each level takes one byte of a 64 bit hash.
const hashLevels = 8

// hexIndex[2*i:2*i+2] is index i as it begins the name of a link in a trie.
var hexIndex = func() string {
	const digits = "0123456789ABCDEF"
	b := make([]byte, 0, 2*FanOut)
	for i := range FanOut {
		b = append(b, digits[i>>4], digits[i&15])
	}
	return string(b)
}()

type hashedChild struct {
	hash uint64
	*Child
}

// shardLink is a link of a node of the trie that is being written.
type shardLink struct {
	index byte
	Child // a shard below has no Name
}

type shardWriter struct {
	nodes []Block
	links []shardLink // of the nodes on the way from the root: one stack instead of a slice each
}

// shardDAG makes the trie of children, which are checked and sorted by name.
func shardDAG(children []Child) (Child, []Block, error) {
	hashed := make([]hashedChild, len(children))
	var buf [NameMax]byte
	for i := range children {
		name := append(buf[:0], children[i].Name...)
		hashed[i] = hashedChild{murmur3.Sum64(name), &children[i]}
	}
	slices.SortFunc(hashed, func(a, b hashedChild) int { return cmp.Compare(a.hash, b.hash) })
	w := shardWriter{nodes: make([]Block, 0, len(children)/4)}
	root, err := w.write(hashed, 0)
	if err != nil {
		return Child{}, nil, fmt.Errorf("folder: %w", err)
	}
	return root, w.nodes, nil
}

// write makes the node for entries whose hashes agree in their first level bytes, and
// all below it.
func (w *shardWriter) write(entries []hashedChild, level int) (Child, error) {
	if level == hashLevels {
		return Child{}, fmt.Errorf("%s and %s: %w", clip(entries[0].Name), clip(entries[1].Name), errCollision)
	}
	base := len(w.links)
	for len(entries) > 0 {
		index := hashByte(entries[0].hash, level)
		n := 1
		for n < len(entries) && hashByte(entries[n].hash, level) == index {
			n++
		}
		link := shardLink{index, *entries[0].Child}
		if n > 1 {
			sub, err := w.write(entries[:n], level+1)
			if err != nil {
				return Child{}, err
			}
			link.Child = sub
		}
		w.links = append(w.links, link)
		entries = entries[n:]
	}
	shard := w.encode(w.links[base:])
	w.links = w.links[:base]
	return shard, nil
}

func (w *shardWriter) encode(links []shardLink) Child {
	var used [FanOut / 8]byte
	size, tsize := 0, uint64(0)
	for i := range links {
		l := &links[i]
		_, wrapped := linkLen(2+len(l.Name), l.Tsize)
		size += wrapped
		tsize += l.Tsize
		setBit(&used, l.index)
	}
	header := 2 + 1 + protowire.SizeBytes(len(trimBits(&used))) + 2 + 3
	data := make([]byte, 0, size+1+protowire.SizeBytes(header))
	for i := range links {
		l := &links[i]
		at := 2 * int(l.index)
		data = appendLink(data, l.CID, hexIndex[at:at+2], l.Name, l.Tsize)
	}
	data = appendShardHeader(data, &used)
	b := Block{SumNode(data), data}
	w.nodes = append(w.nodes, b)
	return Child{CID: b.CID, Tsize: tsize + uint64(len(data))}
}

// errCollision: 64 bits of hash do not tell two names apart. Chance does not do that.
var errCollision = errors.New("names with one hash")

// hashPrefix gives the first level bytes of a name's hash as a number.
func hashPrefix(hash uint64, level int) uint64 {
	if level == 0 {
		return 0
	}
	return hash >> (64 - 8*level)
}

// hashByte gives the byte of a name's hash that chooses the link at a level of a trie.
func hashByte(hash uint64, level int) byte { return byte(hash >> (56 - 8*level)) }

// appendShardHeader appends the data field of a node of a trie. The bit of each index
// that is in use is counted from the end, and leading zero bytes are left out.
func appendShardHeader(b []byte, used *[FanOut / 8]byte) []byte {
	bits := trimBits(used)
	header := 2 + 1 + protowire.SizeBytes(len(bits)) + 2 + 3
	b = appendVarintField(b, tagNodeData, uint64(header))
	b = append(b, tagType, typeShard)
	b = appendBytesField(b, tagData, bits)
	b = append(b, tagHashType, hashMurmur3)
	return binary.AppendUvarint(append(b, tagFanOut), FanOut)
}

func trimBits(used *[FanOut / 8]byte) []byte {
	i := 0
	for i < len(used) && used[i] == 0 {
		i++
	}
	return used[i:]
}

func setBit(used *[FanOut / 8]byte, i byte) { used[len(used)-1-int(i/8)] |= 1 << (i % 8) }
