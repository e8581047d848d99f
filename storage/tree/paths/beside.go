package paths

import (
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// besideMark is in the name of every conflict.
const besideMark = " (conflict "

// suffixMax is the longest suffix that is kept behind the mark, so that the file still opens with its program.
const suffixMax = 16

// named is a conflict with the name that it is shown under.
type named struct {
	name    string
	node    *node
	version *version
}

// besides names the conflicts of a folder, in the order of their names. The name is "stem (conflict AUTHOR 2026-11-23
// 1a2b).suffix" with as many digits of the version's id as set it apart from what else is in the folder. It depends on
// the set of versions alone, so every peer shows the same; that is why a name that two could have goes to neither.
func (t *Tree) besides(n *node, dir string) []named {
	if n.dir == nil || len(n.dir.apart) == 0 {
		return nil
	}
	var all []named
	for m := range n.dir.apart {
		for k := m.first; k != nil; k = k.next {
			if k.flags&beside != 0 {
				all = append(all, named{"", m, k})
			}
		}
	}
	for try, left := 0, len(all); left > 0; try++ {
		count := map[string]int{}
		for _, b := range all {
			count[b.candidate(try)]++
		}
		for i, b := range all {
			name := b.candidate(try)
			if b.name == "" && count[name] == 1 && !t.shows(Join(dir, name)) {
				all[i].name = name
				left--
			}
		}
	}
	slices.SortFunc(all, func(a, b named) int { return strings.Compare(a.name, b.name) })
	return all
}

// shows reports whether there is something at a path itself.
func (t *Tree) shows(path string) bool {
	n := t.byHash[HashOf(path)]
	return n != nil && n.flags&exists != 0
}

// candidate is the try-th name for a conflict: with 4, 8, then all 16 digits, then with ever more signs behind them,
// of which there are as many as somebody made files to be in the way. It is in NFC, whatever its parts were in: a name
// in mixed form is found by neither of the spellings that people's programs ask for.
func (b named) candidate(try int) string {
	id := b.version.id.String()
	switch {
	case try < 2:
		id = id[:4<<try]
	default:
		id += strings.Repeat("~", try-2)
	}
	mark := besideMark + authorName(b.version.author) + " " + b.version.time.Time().UTC().Format("2006-01-02") + " " + id + ")"
	stem, suffix := norm.NFC.String(b.node.name), ""
	if i := strings.LastIndexByte(stem, '.'); i > 0 && len(stem)-i <= suffixMax {
		stem, suffix = stem[:i], stem[i:]
	}
	return cut(stem, NameMax-len(mark)-len(suffix)) + mark + suffix
}

// authorNameMax is how much of an author's name stands in a conflict's, in bytes.
const authorNameMax = 32

// authorName is what an author is called in the name of a file: without what some system does not allow there, or the
// end of its id, which is what people see of one.
func authorName(a *Author) string {
	name := strings.Map(func(r rune) rune {
		if r < ' ' || strings.ContainsRune(`\/<>:"|?*()`, r) {
			return -1
		}
		return r
	}, norm.NFC.String(a.Name))
	name = strings.TrimSpace(cut(strings.ToValidUTF8(name, ""), authorNameMax))
	if name != "" {
		return name
	}
	id := a.Peer.String()
	return id[max(0, len(id)-6):]
}

// cut shortens s to at most size bytes, between two letters.
func cut(s string, size int) string {
	if len(s) <= size {
		return s
	}
	size = max(size, 0)
	for size > 0 && !utf8.RuneStart(s[size]) {
		size--
	}
	return s[:size]
}
