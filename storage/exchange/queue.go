package exchange

import (
	"slices"

	"github.com/shoal-os/shoal/storage/chunk/bitfield"
)

// cancelRuns takes the leaves of gone out of queue, which keeps its order. Its
// cost grows with the lengths of both together, not with their product: a
// stranger chooses both.
func cancelRuns(queue, gone []bitfield.Run) []bitfield.Run {
	gone = union(gone)
	var rest []bitfield.Run
	for _, q := range queue {
		// The first that ends after q begins; those before it do not touch q.
		k, _ := slices.BinarySearchFunc(gone, q.First, func(g bitfield.Run, first int) int {
			if g.First+g.Count <= first {
				return -1
			}
			return 1
		})
		from, end := q.First, q.First+q.Count
		for ; k < len(gone) && gone[k].First < end && len(rest) <= queueRuns; k++ {
			if n := gone[k].First - from; n > 0 {
				rest = append(rest, bitfield.Run{First: from, Count: n})
			}
			from = max(from, gone[k].First+gone[k].Count)
		}
		if from < end {
			rest = append(rest, bitfield.Run{First: from, Count: end - from})
		}
	}
	return rest
}

// union gives the leaves of runs as runs in order that do not touch.
func union(runs []bitfield.Run) []bitfield.Run {
	slices.SortFunc(runs, func(a, b bitfield.Run) int { return a.First - b.First })
	out := runs[:0]
	for _, r := range runs {
		if k := len(out) - 1; k >= 0 && r.First <= out[k].First+out[k].Count {
			out[k].Count = max(out[k].Count, r.First+r.Count-out[k].First)
		} else {
			out = append(out, r)
		}
	}
	return out
}
