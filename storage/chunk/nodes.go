package chunk

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spaolacci/murmur3"
)

// ErrNoEntry reports a path that leads to nothing.
var ErrNoEntry = errors.New("there is no such entry")

// Edge is a link of a node.
type Edge struct {
	Name string // of an entry of a folder; "" for a part of a file and for a shard below
	CID  CID
	Size int64 // in a file, the bytes of the file under it; elsewhere its Tsize, -1 if it has none
}

// Node is a decoded non-leaf block.
type Node struct {
	Kind  Kind
	Shard bool // one shard of a folder
	Edges []Edge
}

// DecodeNode decodes a non-leaf block, as strictly as a Walker does for one
// block on its own.
func DecodeNode(data []byte) (Node, error) {
	n, err := decodeNode(data)
	if err != nil {
		return Node{}, fmt.Errorf("node: %w", err)
	}
	out := Node{Edges: make([]Edge, len(n.links))}
	switch n.kind {
	case dirKind:
		out.Kind = Dir
	case shardKind:
		out.Kind, out.Shard = Dir, true
	case symlinkKind:
		out.Kind = Symlink
	}
	for i := range n.links {
		l := &n.links[i]
		out.Edges[i] = Edge{Name: n.entryName(l), CID: l.cid, Size: l.size}
	}
	return out, nil
}

// Resolve follows a slash-separated path from root. trail is every block that
// proves where the path leads, root first, shards included, what it leads to last;
// steps are the root and what each element of the path names, so its last is the
// last of trail. get returns the non-leaf block of a name. A path that leads to
// nothing is ErrNoEntry.
func Resolve(root CID, path string, get func(CID) ([]byte, error)) (trail, steps []CID, err error) {
	trail, steps = []CID{root}, []CID{root}
	if path = strings.Trim(path, "/"); path == "" {
		return trail, steps, nil
	}
	for name := range strings.SplitSeq(path, "/") {
		at, found := steps[len(steps)-1], false
		for level := 0; !found && level < hashLevels; level++ {
			next, shard, err := step(at, name, level, get)
			if err != nil {
				return nil, nil, err
			}
			trail, at, found = append(trail, next), next, !shard
		}
		if !found {
			return nil, nil, fmt.Errorf("%s: %w", clip(path), ErrNoEntry)
		}
		steps = append(steps, at)
	}
	return trail, steps, nil
}

// step finds what a folder's node links for a name: the entry, or the shard
// below that must have it.
func step(at CID, name string, level int, get func(CID) ([]byte, error)) (next CID, shard bool, err error) {
	missing := fmt.Errorf("%s: %w", clip(name), ErrNoEntry)
	if at.IsRaw() || name == "" {
		return CID{}, false, missing
	}
	data, err := get(at)
	if err != nil {
		return CID{}, false, err
	}
	n, err := decodeNode(data)
	if err != nil {
		return CID{}, false, fmt.Errorf("node: %w", err)
	}
	if n.kind != dirKind && n.kind != shardKind {
		return CID{}, false, missing
	}
	index := hashByte(murmur3.Sum64([]byte(name)), level)
	for i := range n.links {
		l := &n.links[i]
		if n.entryName(l) == name {
			return l.cid, false, nil
		}
		if n.kind != shardKind || n.entryName(l) != "" {
			continue
		}
		if k, err := shardIndex(l.name); err == nil && k == index {
			return l.cid, true, nil
		}
	}
	return CID{}, false, missing
}
