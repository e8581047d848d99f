package chunk

import (
	"bytes"
	"errors"
	"fmt"
	"math"
)

// nodeKind is what a node is, as its UnixFS type says.
type nodeKind uint8

const (
	fileKind nodeKind = iota
	dirKind
	shardKind
	symlinkKind
)

func (k nodeKind) String() string {
	return [...]string{"file", "folder", "folder shard", "symbolic link"}[k]
}

// link is a link of a node.
type link struct {
	name string
	size int64 // in a file: bytes of the file under it; elsewhere its Tsize, -1 if it has none
	cid  CID
}

// node is a decoded node.
type node struct {
	kind   nodeKind
	links  []link
	size   int64  // of a file, all of it
	target string // of a symbolic link

	// What the walk learned of it.
	sum    tally  // what is below
	level  int    // of a shard: how many bytes of hash lead to it
	prefix uint64 // of a shard: these bytes
}

var (
	errHeader    = errors.New("a UnixFS field that is unknown, repeated or out of order")
	errNoTsize   = errors.New("a link to a leaf has no Tsize")
	errBlockSize = errors.New("it has not one block size for each link")
	errInline    = errors.New("a file keeps bytes inside a node, which is not of profile unixfs-v1-2025: its leaves must be raw")
)

// decodeHeader decodes UnixFS data.
func (n *node) decodeHeader(r reader) error {
	if !r.peek(tagType) {
		return errMissing
	}
	r.at++
	kind, err := r.varint()
	if err != nil {
		return err
	}
	switch kind {
	case typeDir:
		n.kind = dirKind
	case typeFile:
		n.kind = fileKind
		err = n.decodeFile(&r)
	case typeSymlink:
		n.kind = symlinkKind
		err = n.decodeSymlink(&r)
	case typeShard:
		n.kind = shardKind
		err = n.decodeShard(&r)
	default:
		return fmt.Errorf("UnixFS type %d is not of profile unixfs-v1-2025", kind)
	}
	if err != nil {
		return err
	}
	return skipStat(&r)
}

// skipStat reads mode and mtime, which are the last fields.
func skipStat(r *reader) error {
	if r.peek(tagMode) {
		r.at++
		mode, err := r.varint()
		if err != nil {
			return err
		}
		if mode > math.MaxUint32 {
			return fmt.Errorf("mode %d is out of range", mode)
		}
	}
	if r.peek(tagMtime) {
		r.at++
		if _, err := r.field(); err != nil {
			return err
		}
	}
	if r.more() {
		return errHeader
	}
	return nil
}

// decodeFile reads the file's size and puts the size of each part into its link.
func (n *node) decodeFile(r *reader) (err error) {
	if r.peek(tagData) {
		return errInline
	}
	if !r.peek(tagFileSize) {
		return errMissing
	}
	r.at++
	if n.size, err = r.size(); err != nil {
		return err
	}
	for i := range n.links {
		if !r.peek(tagBlockSize) {
			return errBlockSize
		}
		r.at++
		if n.links[i].size, err = r.size(); err != nil {
			return err
		}
	}
	if r.peek(tagBlockSize) {
		return errBlockSize
	}
	return nil
}

func (n *node) decodeSymlink(r *reader) error {
	if !r.peek(tagData) {
		return errMissing
	}
	r.at++
	f, err := r.field()
	if err != nil {
		return err
	}
	n.target = string(f.bytes())
	if err := CheckTarget(n.target); err != nil {
		return err
	}
	if !r.peek(tagFileSize) {
		return nil
	}
	r.at++ // some tools write the length of the target here
	if size, err := r.size(); err != nil || size != int64(len(n.target)) {
		return errHeader
	}
	return nil
}

// decodeShard checks that the header is the one that the links call for.
func (n *node) decodeShard(r *reader) error {
	var used [FanOut / 8]byte
	last := -1
	for i := range n.links {
		index, err := shardIndex(n.links[i].name)
		if err != nil {
			return err
		}
		if int(index) <= last {
			return errors.New("its links are not in order")
		}
		last = int(index)
		setBit(&used, index)
	}
	if !r.peek(tagData) {
		return errMissing
	}
	r.at++
	bits, err := r.field()
	if err != nil {
		return err
	}
	if !bytes.Equal(bits.bytes(), trimBits(&used)) {
		return errors.New("its bit field does not agree with its links")
	}
	if err := r.exactly(tagHashType, hashMurmur3, "hash of a folder's names"); err != nil {
		return err
	}
	return r.exactly(tagFanOut, FanOut, "fan-out of a folder")
}

// shardIndex reads the two hexadecimal digits that begin a link's name in a trie.
func shardIndex(name string) (byte, error) {
	if len(name) < 2 {
		return 0, errors.New("a link has no index")
	}
	hi, lo := hexDigit(name[0]), hexDigit(name[1])
	if hi < 0 || lo < 0 {
		return 0, fmt.Errorf("a link has index %s", clip(name[:2]))
	}
	return byte(hi<<4 | lo), nil
}

func hexDigit(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	default:
		return -1
	}
}

// checkLinks checks what the kind of node asks of its links.
func (n *node) checkLinks() error {
	switch n.kind {
	case fileKind:
		return n.checkParts()
	case dirKind:
		return n.checkEntries(0)
	case shardKind:
		if len(n.links) == 0 {
			return errors.New("it is an empty shard")
		}
		return n.checkEntries(2)
	default:
		if len(n.links) > 0 {
			return errors.New("a symbolic link has links")
		}
		return nil
	}
}

func (n *node) checkParts() error {
	if len(n.links) == 0 {
		return errors.New("a file's node has no links: an empty file is an empty raw leaf")
	}
	var sum int64
	for i := range n.links {
		l := &n.links[i]
		if l.name != "" {
			return fmt.Errorf("part %d of a file has a name", i)
		}
		if l.size == 0 || l.cid.IsRaw() && l.size > LeafMax {
			return fmt.Errorf("part %d of a file has %d bytes", i, l.size)
		}
		if sum += l.size; sum < 0 {
			return errors.New("its sizes add up to more than there can be")
		}
	}
	if sum != n.size {
		return fmt.Errorf("its parts have %d bytes and the whole %d", sum, n.size)
	}
	return nil
}

// checkEntries checks the names of a folder, each without its first skip bytes.
func (n *node) checkEntries(skip int) error {
	for i := range n.links {
		l := &n.links[i]
		name := l.name[skip:]
		if skip > 0 && name == "" { // a shard below
			if l.cid.IsRaw() {
				return fmt.Errorf("shard %s is a raw leaf", clip(l.name))
			}
			continue
		}
		if err := CheckName(name, ""); err != nil {
			return err
		}
		if skip == 0 && i > 0 && n.links[i-1].name >= name {
			return fmt.Errorf("name %s is out of order or occurs twice", clip(name))
		}
		if l.cid.IsRaw() {
			if err := checkRawEntry(l); err != nil {
				return fmt.Errorf("entry %s: %w", clip(name), err)
			}
		}
	}
	return nil
}

// checkRawEntry checks the size of a file that is one leaf.
func checkRawEntry(l *link) error {
	switch {
	case l.size < 0:
		return errNoTsize
	case l.size > LeafMax:
		return fmt.Errorf("a leaf of %d bytes, more than %d", l.size, LeafMax)
	case (l.size == 0) != (l.cid == emptyLeaf):
		return fmt.Errorf("a leaf of %d bytes whose CID says otherwise", l.size)
	}
	return nil
}
