package wire

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// TextMax is the most text from another peer that is shown, in bytes.
const TextMax = 1 << 10

// The two format characters that writing systems need and that cannot reorder or hide text: without them Persian
// words join wrongly and composed emoji fall apart.
const (
	zeroWidthNonJoiner = '\u200c'
	zeroWidthJoiner    = '\u200d'
)

// CleanText makes text from another peer safe for a screen: line breaks and tabs become spaces; control characters,
// escape sequences' first bytes, bidirectional overrides, other invisible format characters and invalid UTF-8 are
// dropped; what passes TextMax bytes is cut off and marked with an ellipsis.
func CleanText(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == utf8.RuneError:
			continue
		case unicode.IsSpace(r):
			r = ' '
		case r == zeroWidthJoiner || r == zeroWidthNonJoiner:
		case !unicode.IsPrint(r):
			continue
		}
		if b.Len()+utf8.RuneLen(r) > TextMax {
			b.WriteString("…")
			break
		}
		b.WriteRune(r)
	}
	return b.String()
}
