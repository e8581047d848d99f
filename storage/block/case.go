package block

import (
	"strings"

	"github.com/shoal-os/shoal/storage/chunk"
)

// caseClash finds two paths of the tree that differ only in case.
func caseClash(tree *chunk.Tree) (a, b string, clash bool) {
	seen := make(map[string]string, len(tree.Entries))
	for i := range tree.Entries {
		path := tree.Entries[i].Path
		folded := strings.ToLower(strings.ToUpper(path))
		if first, ok := seen[folded]; ok {
			return first, path, true
		}
		seen[folded] = path
	}
	return "", "", false
}
