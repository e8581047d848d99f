package exchange

import (
	"slices"

	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/chunk/bitfield"
)

// sameLeaves groups the wanted leaves that have equal bytes, so that each is
// fetched once: it removes from want all but one of each group, and returns
// the others by that one.
func sameLeaves(tree *chunk.Tree, want *bitfield.Bitfield) map[int32][]int32 {
	order := make([]int32, 0, want.Count())
	for i := range tree.Leaves {
		if want.Has(i) {
			order = append(order, int32(i))
		}
	}
	slices.SortFunc(order, func(a, b int32) int {
		if c := tree.Leaves[a].CID.Compare(tree.Leaves[b].CID); c != 0 {
			return c
		}
		return int(a - b)
	})
	var same map[int32][]int32
	for i := 0; i < len(order); {
		k := i + 1
		for k < len(order) && tree.Leaves[order[k]].CID == tree.Leaves[order[i]].CID {
			want.Clear(int(order[k]))
			k++
		}
		if k > i+1 {
			if same == nil {
				same = map[int32][]int32{}
			}
			same[order[i]] = order[i+1 : k]
		}
		i = k
	}
	return same
}
