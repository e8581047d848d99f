package chunk

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"runtime"
	"strings"
	"testing"

	"github.com/spaolacci/murmur3"
)

// forge is a node that no honest builder makes, from its parts.
func forge(links, header []byte) []byte {
	return appendBytesField(bytes.Clone(links), tagNodeData, header)
}

func (s *store) add(data []byte) CID {
	c := SumNode(data)
	s.nodes[c] = data
	return c
}

// cat joins links that appendLink made.
func cat(links ...[]byte) []byte { return bytes.Join(links, nil) }

func to(c CID, name string, tsize uint64) []byte { return appendLink(nil, c, "", name, tsize) }

// fileHeader is UnixFS data of a file of size bytes in these parts.
func fileHeader(size uint64, parts ...uint64) []byte {
	b := appendVarintField([]byte{tagType, typeFile}, tagFileSize, size)
	for _, p := range parts {
		b = appendVarintField(b, tagBlockSize, p)
	}
	return b
}

// shardHeader is UnixFS data of a shard with these indexes in use.
func shardHeader(indexes ...byte) []byte {
	var used [FanOut / 8]byte
	for _, i := range indexes {
		setBit(&used, i)
	}
	b := appendShardHeader(nil, &used)
	return b[len(b)-shardHeaderLen(trimBits(&used)):]
}

func shardHeaderLen(bits []byte) int { return 2 + 2 + len(bits) + 2 + 3 }

var (
	dirBytes  = []byte{tagType, typeDir}
	leafBytes = []byte("leaf")
	leaf      = SumRaw(leafBytes)
)

func named(name string) []byte { return forge(to(leaf, name, 4), dirBytes) }

// hostileNodes are single nodes: each is a whole tree, and unacceptable.
func hostileNodes() map[string]struct {
	data []byte
	want string
} {
	two := to(SumRaw([]byte("2")), "b", 1)
	type bad = struct {
		data []byte
		want string
	}
	nul := "a\x00b"
	cases := map[string]bad{
		"parent name":            {named(".."), "another folder"},
		"own name":               {named("."), "another folder"},
		"empty name":             {named(""), "empty"},
		"absolute name":          {named("/etc/passwd"), "slash"},
		"climbing name":          {named("../x"), "slash"},
		"NUL in a name":          {named(nul), "control"},
		"escape sequence":        {named("\x1b[2J"), "control"},
		"C1 control":             {named("a\u009bb"), "control"},
		"line break":             {named("a\nb"), "control"},
		"bad UTF-8":              {named("a\xffb"), "UTF-8"},
		"name of 256 bytes":      {named(strings.Repeat("n", 256)), "more than 255"},
		"name of 1 MB":           {named(strings.Repeat("n", 1<<20)), "more than 255"},
		"name of 10 MB":          {named(strings.Repeat("n", 10<<20)), "more than 2097152"},
		"duplicate names":        {forge(cat(to(leaf, "a", 4), to(leaf, "a", 4)), dirBytes), "twice"},
		"unsorted names":         {forge(cat(two, to(leaf, "a", 4)), dirBytes), "out of order"},
		"no data":                {to(leaf, "a", 4), "no UnixFS data"},
		"empty block":            {nil, "no UnixFS data"},
		"no type":                {forge(nil, nil), "lacks a field"},
		"raw type":               {forge(nil, []byte{tagType, 0}), "profile"},
		"metadata type":          {forge(nil, []byte{tagType, 3}), "profile"},
		"type of many bits":      {forge(nil, appendVarintField(nil, tagType, math.MaxUint64)), "profile"},
		"trailing byte":          {append(named("a"), 0), "after its end"},
		"trailing field":         {append(named("a"), forge(nil, dirBytes)...), "after its end"},
		"links after data":       {append(forge(nil, dirBytes), to(leaf, "a", 4)...), "after its end"},
		"unknown node field":     {append([]byte{0x1a, 0}, named("a")...), "dag-pb"},
		"unknown header field":   {forge(nil, append(bytes.Clone(dirBytes), 0x48, 1)), "UnixFS field"},
		"type twice":             {forge(nil, append(bytes.Clone(dirBytes), dirBytes...)), "UnixFS field"},
		"folder with size":       {forge(nil, append(bytes.Clone(dirBytes), tagFileSize, 1)), "UnixFS field"},
		"mode after mtime":       {forge(nil, append(bytes.Clone(dirBytes), tagMtime, 0, tagMode, 1)), "UnixFS field"},
		"huge mode":              {forge(nil, appendVarintField(bytes.Clone(dirBytes), tagMode, 1<<32)), "mode"},
		"long varint":            {forge(nil, []byte{tagType, 0x81, 0x00}), "shortest form"},
		"endless varint":         {forge(nil, append([]byte{tagType}, bytes.Repeat([]byte{0xff}, 11)...)), "shortest form"},
		"length past the end":    {[]byte{tagNodeLink, 0x7f, 1, 2}, "over the end"},
		"length of 2^64-1":       {append([]byte{tagNodeLink}, bytes.Repeat([]byte{0xff}, 9)...), "shortest form"},
		"a million empty links":  {bytes.Repeat([]byte{tagNodeLink, 0}, 1<<20-1), "no CID"},
		"negative Tsize":         {forge(to(leaf, "a", math.MaxUint64), dirBytes), "out of range"},
		"raw entry too large":    {forge(to(leaf, "a", LeafMax+1), dirBytes), "more than"},
		"raw entry said empty":   {forge(to(leaf, "a", 0), dirBytes), "CID says otherwise"},
		"empty leaf said full":   {forge(to(emptyLeaf, "a", 1), dirBytes), "CID says otherwise"},
		"symlink without target": {forge(nil, []byte{tagType, typeSymlink}), "lacks a field"},
		"symlink to nothing":     {forge(nil, []byte{tagType, typeSymlink, tagData, 0}), "empty"},
		"symlink with NUL":       {forge(nil, appendBytesField([]byte{tagType, typeSymlink}, tagData, []byte(nul))), "NUL"},
		"symlink of 5000":        {forge(nil, appendBytesField([]byte{tagType, typeSymlink}, tagData, bytes.Repeat([]byte("t"), 5000))), "4096"},
		"symlink with links":     {forge(to(leaf, "a", 4), []byte{tagType, typeSymlink, tagData, 1, 'x'}), "has links"},
		"file with inline data":  {forge(nil, []byte{tagType, typeFile, tagData, 1, 'x', tagFileSize, 1}), "inside a node"},
		"file without size":      {forge(to(leaf, "", 4), []byte{tagType, typeFile}), "lacks a field"},
		"file without parts":     {forge(nil, fileHeader(0)), "no links"},
		"file: sum is wrong":     {forge(to(leaf, "", 4), fileHeader(5, 4)), "the whole 5"},
		"file: part of nothing":  {forge(to(leaf, "", 4), fileHeader(0, 0)), "has 0 bytes"},
		"file: too few sizes":    {forge(cat(to(leaf, "", 4), to(leaf, "", 4)), fileHeader(4, 4)), "block size"},
		"file: too many sizes":   {forge(to(leaf, "", 4), fileHeader(8, 4, 4)), "block size"},
		"file: negative size":    {forge(to(leaf, "", 4), fileHeader(math.MaxUint64, 4)), "out of range"},
		"file: negative part":    {forge(to(leaf, "", 4), fileHeader(4, math.MaxUint64)), "out of range"},
		"file: leaf too large":   {forge(to(leaf, "", 4), fileHeader(LeafMax+1, LeafMax+1)), "has 2097153 bytes"},
		"file: named part":       {forge(to(leaf, "x", 4), fileHeader(4, 4)), "has a name"},
		"file: sizes overflow": {forge(cat(to(SumNode(nil), "", 1), to(SumNode(nil), "", 1)),
			fileHeader(math.MaxInt64, math.MaxInt64, math.MaxInt64)), "more than there can be"},
		"shard: empty":           {forge(nil, shardHeader()), "empty shard"},
		"shard: no index":        {forge(to(leaf, "A", 4), shardHeader(10)), "no index"},
		"shard: lower case":      {forge(to(leaf, "aax", 4), shardHeader(0xaa)), "index"},
		"shard: unsorted":        {forge(cat(to(leaf, "02b", 4), to(leaf, "01a", 4)), shardHeader(1, 2)), "not in order"},
		"shard: index twice":     {forge(cat(to(leaf, "01b", 4), to(leaf, "01c", 4)), shardHeader(1)), "not in order"},
		"shard: wrong bits":      {forge(to(leaf, "01b", 4), shardHeader(2)), "bit field"},
		"shard: wrong place":     {forge(to(leaf, "01b", 4), shardHeader(1)), "hash says"},
		"shard: name ..":         {forge(to(leaf, "01..", 4), shardHeader(1)), "another folder"},
		"shard: below is raw":    {forge(to(leaf, "01", 4), shardHeader(1)), "raw leaf"},
		"shard: other hash":      {forge(to(leaf, "01b", 4), []byte{tagType, typeShard, tagData, 1, 2, tagHashType, 0x12, tagFanOut, 16}), "hash"},
		"shard: other fan-out":   {forge(to(leaf, "01b", 4), []byte{tagType, typeShard, tagData, 1, 2, tagHashType, 0x22, tagFanOut, 16}), "fan-out"},
		"shard: bits not sparse": {forge(to(leaf, "01b", 4), []byte{tagType, typeShard, tagData, 2, 0, 2, tagHashType, 0x22, tagFanOut, 0x80, 2}), "bit field"},
	}
	link := func(hash []byte, rest ...byte) []byte {
		inner := append(appendBytesField(nil, tagLinkHash, hash), rest...)
		return forge(appendBytesField(nil, tagNodeLink, inner), dirBytes)
	}
	cid := leaf.Bytes()
	cases["link without CID"] = bad{forge(appendBytesField(nil, tagNodeLink, []byte{tagLinkName, 1, 'a'}), dirBytes), "no CID"}
	cases["link CID cut off"] = bad{link(cid[:20], tagLinkName, 1, 'a'), "want 36"}
	cases["link CID too long"] = bad{link(append(bytes.Clone(cid), 0), tagLinkName, 1, 'a'), "after its end"}
	cases["link to dag-cbor"] = bad{link(append([]byte{1, 0x71}, cid[2:]...), tagLinkName, 1, 'a'), "only raw and dag-pb"}
	cases["link by sha1"] = bad{link(append([]byte{1, 0x55, 0x11, 20}, cid[4:]...), tagLinkName, 1, 'a'), "only sha2-256"}
	cases["link name twice"] = bad{link(cid, tagLinkName, 1, 'a', tagLinkName, 1, 'a', tagLinkTsize, 4), "dag-pb"}
	cases["link fields unsorted"] = bad{link(cid, tagLinkTsize, 4, tagLinkName, 1, 'a'), "dag-pb"}
	cases["link without Tsize"] = bad{link(cid, tagLinkName, 1, 'a'), "no Tsize"}
	return cases
}

func TestHostileNodes(t *testing.T) {
	for name, c := range hostileNodes() {
		t.Run(name, func(t *testing.T) {
			s := newStore()
			root := s.add(c.data)
			before := allocated()
			_, err := s.walk(root, Limits{})
			checkTreeError(t, err, c.want)
			if got := allocated() - before; got > 8<<20 {
				t.Errorf("refusing the node allocated %d bytes", got)
			}
		})
	}
}

func checkTreeError(t *testing.T, err error, want string) {
	t.Helper()
	if !errors.Is(err, ErrTree) || errors.Is(err, ErrHash) {
		t.Fatalf("error %v, want ErrTree", err)
	}
	if !strings.Contains(err.Error(), want) {
		t.Errorf("error %q does not mention %q", err, want)
	}
	if len(err.Error()) > 600 {
		t.Errorf("error of %d bytes", len(err.Error()))
	}
	for _, r := range err.Error() {
		if r < ' ' || r == 0x7f {
			t.Fatalf("error %q has control characters", err)
		}
	}
}

// TestHostileTrees has trees whose nodes are fine one by one.
func TestHostileTrees(t *testing.T) {
	parent := func(s *store, link, header []byte) CID { return s.add(forge(link, header)) }
	cases := map[string]struct {
		build  func(s *store) CID
		limits Limits
		want   string
	}{
		"a part is a folder": {func(s *store) CID {
			return parent(s, to(s.add(named("a")), "", 9), fileHeader(4, 4))
		}, Limits{}, "a part of a file is a folder"},
		"a part has another size": {func(s *store) CID {
			part := s.add(forge(to(leaf, "", 4), fileHeader(4, 4)))
			return parent(s, to(part, "", 9), fileHeader(5, 5))
		}, Limits{}, "where its parent says 5"},
		"a repeated part has another size": {func(s *store) CID {
			part := s.add(forge(to(leaf, "", 4), fileHeader(4, 4)))
			return parent(s, cat(to(part, "", 9), to(part, "", 9)), fileHeader(9, 4, 5))
		}, Limits{}, "where its parent says 5"},
		"a shard is a folder": {func(s *store) CID {
			return parent(s, to(s.add(named("a")), "01", 9), shardHeader(1))
		}, Limits{}, "a shard is a folder"},
		"shards deeper than the hash": {func(s *store) CID {
			c := s.add(forge(to(leaf, "01a", 4), shardHeader(1)))
			for range 20 {
				c = parent(s, to(c, "01", 9), shardHeader(1))
			}
			return c
		}, Limits{}, "deeper than its hash"},
		"folders 100,000 deep":    {func(s *store) CID { return s.nest(100_000, "d") }, Limits{}, "nested more than 256"},
		"folders one too deep":    {func(s *store) CID { return s.nest(4, "d") }, Limits{Depth: 3}, "nested more than 3"},
		"a long path":             {func(s *store) CID { return s.nest(40, strings.Repeat("d", 200)) }, Limits{}, "more than 4096"},
		"a file 100,000 deep":     {func(s *store) CID { return s.nestFile(100_000) }, Limits{}, "more than 8 nodes deep"},
		"too many bytes of nodes": {func(s *store) CID { return s.nest(200, "d") }, Limits{NodeBytes: 20_000}, "too many nodes"},
		"too many bytes of paths": {func(s *store) CID { return s.nest(100, "dddd") }, Limits{PathBytes: 9_000}, "paths of the tree"},
		"too many entries":        {func(s *store) CID { return s.nest(100, "d") }, Limits{Entries: 99}, "more than 99 entries"},
		"too many leaves":         {func(s *store) CID { return s.zeros(100 * LeafSize).CID }, Limits{Leaves: 99}, "more than 99 leaves"},
		"a bomb of folders":       {func(s *store) CID { return s.bomb(10) }, Limits{}, "more than 1048576 entries"},
		"a bomb of files":         {func(s *store) CID { return s.fileBomb(6) }, Limits{}, "more than 2097152 leaves"},
		"a bomb of paths":         {func(s *store) CID { return s.bomb(2) }, Limits{PathBytes: 1 << 20}, "paths of the tree"},
		"a path long by a repeat": {longRepeat, Limits{}, "more than 4096"},
		"a shard under another's prefix": {func(s *store) CID {
			hash := murmur3.Sum64([]byte("a"))
			sub := s.shard("a", leaf, 1, 1)
			wrong := hashByte(hash, 0) + 1
			return s.add(forge(appendLink(nil, sub, hexIndex[2*int(wrong):][:2], "", 9), shardHeader(wrong)))
		}, Limits{}, "hash says"},
		"sharded folders deep by a repeat": {func(s *store) CID {
			sub := s.nest(200, "d")
			for range 3 {
				sub = s.shard("s", sub, 0, 3)
			}
			top := sub
			for range 54 {
				top = s.add(forge(to(top, "e", 1), dirBytes))
			}
			return s.add(forge(cat(to(sub, "a", 1), to(top, "b", 1)), dirBytes))
		}, Limits{}, "nested more than 256"},
		"folders deep by a repeat": {deepRepeat, Limits{}, "nested more than 256"},
		"a file deep by a repeat": {func(s *store) CID {
			f := s.nestFile(6)
			top := f
			for range 3 {
				top = s.add(forge(cat(to(f, "", 9), to(top, "", 9)), fileHeader(4+s.size(top), 4, s.size(top))))
			}
			return s.add(forge(cat(to(f, "a", 9), to(top, "b", 9)), dirBytes))
		}, Limits{}, "more than 8 nodes deep"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s := newStore()
			root := c.build(s)
			before := allocated()
			_, err := s.walk(root, c.limits)
			checkTreeError(t, err, c.want)
			if got := allocated() - before; got > 8<<20 {
				t.Errorf("refusing the tree allocated %d bytes", got)
			}
		})
	}
}

func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// size gives what a file's node says of itself.
func (s *store) size(c CID) uint64 {
	n, err := decodeNode(s.nodes[c])
	if err != nil {
		panic(err)
	}
	return uint64(n.size)
}

// nest builds depth folders inside each other.
func (s *store) nest(depth int, name string) CID {
	c := s.add(forge(nil, dirBytes))
	for range depth - 1 {
		c = s.add(forge(to(c, name, 1), dirBytes))
	}
	return c
}

// nestFile builds a file of 4 bytes under depth nodes.
func (s *store) nestFile(depth int) CID {
	c := leaf
	for range depth {
		c = s.add(forge(to(c, "", 4), fileHeader(4, 4)))
	}
	return c
}

// bomb builds levels of folders, each with 1,024 times the same one in it.
func (s *store) bomb(levels int) CID {
	c := s.add(named("leaf"))
	for range levels {
		var links []byte
		for i := range 1024 {
			links = append(links, to(c, fmt.Sprintf("%04d", i), 1)...)
		}
		c = s.add(forge(links, dirBytes))
	}
	return c
}

// fileBomb builds a file of 1,024^levels leaves, all one.
func (s *store) fileBomb(levels int) CID {
	c, size := leaf, uint64(len(leafBytes))
	for range levels {
		var links []byte
		sizes := make([]uint64, LinksMax)
		for i := range sizes {
			links = append(links, to(c, "", 1)...)
			sizes[i] = size
		}
		size *= LinksMax
		c = s.add(forge(links, fileHeader(size, sizes...)))
	}
	return c
}

// shard builds the chain of shards from level first that holds one entry at level last.
func (s *store) shard(name string, c CID, first, last int) CID {
	hash, label := murmur3.Sum64([]byte(name)), name
	for level := last; level >= first; level-- {
		index := hashByte(hash, level)
		c = s.add(forge(appendLink(nil, c, hexIndex[2*int(index):][:2], label, 4), shardHeader(index)))
		label = ""
	}
	return c
}

// longRepeat has a subtree twice; its paths are too long in the second place only.
func longRepeat(s *store) CID {
	name := strings.Repeat("d", 200)
	sub := s.nest(15, name)
	top := sub
	for range 10 {
		top = s.add(forge(to(top, name, 1), dirBytes))
	}
	return s.add(forge(cat(to(sub, "a", 1), to(top, "b", 1)), dirBytes))
}

// deepRepeat has a subtree twice; it is too deep in the second place only.
func deepRepeat(s *store) CID {
	sub := s.nest(200, "d")
	top := sub
	for range 100 {
		top = s.add(forge(to(top, "e", 1), dirBytes))
	}
	return s.add(forge(cat(to(sub, "a", 1), to(top, "b", 1)), dirBytes))
}

// TestShardInTwoPlaces reuses an honest shard where its names do not belong.
func TestShardInTwoPlaces(t *testing.T) {
	s := newStore()
	big, _ := s.bigFolder(t, 8000)
	n, err := decodeNode(s.nodes[big.CID])
	if err != nil {
		t.Fatal(err)
	}
	var links []byte
	var indexes []byte
	for i, l := range n.links {
		target := l.cid
		if i == 1 && len(l.name) == 2 && len(n.links[0].name) == 2 {
			target = n.links[0].cid
		}
		links = append(links, appendLink(nil, target, "", l.name, uint64(max(l.size, 0)))...)
		index, err := shardIndex(l.name)
		if err != nil {
			t.Fatal(err)
		}
		indexes = append(indexes, index)
	}
	_, err = s.walk(s.add(forge(links, shardHeader(indexes...))), Limits{})
	checkTreeError(t, err, "two places")
}

func TestWrongBytes(t *testing.T) {
	s := newStore()
	root := s.nest(3, "d")
	w := NewWalker(root, Limits{})
	for _, lie := range [][]byte{nil, []byte("lie"), named("x"), s.nodes[root][:5], make([]byte, NodeMax+1)} {
		if err := w.Add(lie); !errors.Is(err, ErrHash) || errors.Is(err, ErrTree) {
			t.Fatalf("error %v, want ErrHash", err)
		}
		if c, ok := w.Next(); !ok || c != root {
			t.Fatalf("after a lie %v is due, want %v", c, root)
		}
	}
	if _, err := w.Tree(); err == nil {
		t.Error("an incomplete walk gave a tree")
	}
	for c, ok := w.Next(); ok; c, ok = w.Next() {
		if err := w.Add(s.nodes[c]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Add(s.nodes[root]); !errors.Is(err, ErrHash) {
		t.Errorf("a block after the last: error %v, want ErrHash", err)
	}
	if tree, err := w.Tree(); err != nil || tree.Dirs != 3 {
		t.Errorf("tree %v, error %v", tree, err)
	}
}

func TestEndedWalk(t *testing.T) {
	s := newStore()
	root := s.add(named(".."))
	w := NewWalker(root, Limits{})
	first := w.Add(s.nodes[root])
	if _, ok := w.Next(); ok {
		t.Error("a node is due after ErrTree")
	}
	if err := w.Add(s.nodes[root]); !errors.Is(err, ErrTree) || err.Error() != first.Error() {
		t.Errorf("second error %v, want %v", err, first)
	}
	if _, err := w.Tree(); !errors.Is(err, ErrTree) {
		t.Errorf("tree error %v", err)
	}
	if _, err := NewWalker(CID{}, Limits{}).Tree(); !errors.Is(err, ErrTree) {
		t.Errorf("undefined root: error %v", err)
	}
}
