package placement

import "slices"

// Rank returns the indexes of the members with any weight, the best for the key first: weighted rendezvous hashing. A
// member is first with a probability in proportion to its weight. The order of two members depends on nothing but the key
// and those two. For a piece the key is id.Sum[:].
func Rank(key []byte, members []Member) []int {
	f, may := newField(members), eligible(members)
	f.rate(fold(key), may)
	return slices.SortedFunc(may.all(), f.order)
}

// eligible is the set of those with any weight.
func eligible(members []Member) set {
	may := newSet(len(members))
	for i, m := range members {
		may.put(i, m.weight() > 0)
	}
	return may
}

// Choose returns the indexes of the members that should hold so many copies for a key, the best first; fewer if there are
// fewer members with any weight. The first is an anchor if there is one. Each next is of another owner and another site
// than those before if possible, else of another owner, else of another site, else any; among equals Rank decides. So
// Choose of one copy less is the same but for the last.
func Choose(key []byte, members []Member, copies int) []int {
	return newField(members).choose(fold(key), nil, eligible(members), copies)
}
