package chunk

import (
	"encoding/binary"
	"fmt"
	"testing"
)

func benchLeaves(n int) []CID {
	leaves := make([]CID, n)
	for i := range leaves {
		leaves[i].Codec = Raw
		binary.BigEndian.PutUint64(leaves[i].Sum[:], uint64(i))
	}
	return leaves
}

func BenchmarkFileDAG(b *testing.B) {
	for _, n := range []int{1, 1 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("leaves=%d", n), func(b *testing.B) {
			leaves := benchLeaves(n)
			b.ReportAllocs()
			for b.Loop() {
				FileDAG(leaves, int64(n)*LeafSize)
			}
		})
	}
}

func BenchmarkDirDAG(b *testing.B) {
	for _, n := range []int{100, 10_000, 100_000} {
		b.Run(fmt.Sprintf("children=%d", n), func(b *testing.B) {
			children := make([]Child, n)
			for i, c := range benchLeaves(n) {
				children[i] = Child{Name: fmt.Sprintf("f%06d.txt", i), CID: c, Tsize: 4096}
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := DirDAG(children); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkWalker walks 100 folders of 100 files, one folder of 10,000, and a file of 1 TiB.
func BenchmarkWalker(b *testing.B) {
	bench := func(name string, build func(s *store) CID) {
		b.Run(name, func(b *testing.B) {
			s := newStore()
			root := build(s)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.walk(root, Limits{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	bench("files=100x100", func(s *store) CID {
		t := newTree()
		for i, c := range benchLeaves(10_000) {
			t.set(fmt.Sprintf("dir %02d/file %02d", i/100, i%100), Child{CID: c, Tsize: 4096})
		}
		return s.folder(b, t).CID
	})
	bench("files=10000", func(s *store) CID {
		root, _ := s.bigFolder(b, 10_000)
		return root.CID
	})
	bench("leaves=1048576", func(s *store) CID {
		root, nodes := FileDAG(benchLeaves(1<<20), 1<<40)
		s.put(nodes...)
		return root.CID
	})
}

func BenchmarkCIDString(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		_ = leaf.String()
	}
}

func BenchmarkParseCID(b *testing.B) {
	text := leaf.String()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseCID(text); err != nil {
			b.Fatal(err)
		}
	}
}
