package ident

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// NameMax is the longest friendly name, in bytes of UTF-8: the length of a DNS label.
const NameMax = 63

// CleanName makes a friendly name of any text: what does not print (control characters, bidirectional overrides,
// zero-width characters, invalid UTF-8) is dropped, runs of space become one, and the rest is cut at NameMax bytes
// between characters. The result may be empty. CleanName(CleanName(s)) == CleanName(s).
//
// Names come from other peers too and end up on terminals beside other text, so nothing that moves the cursor or
// reorders a line may pass.
func CleanName(s string) string {
	var b strings.Builder
	space := false
	for _, r := range s {
		if unicode.IsSpace(r) {
			space = true
			continue
		}
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			continue
		}
		pending := space && b.Len() > 0
		need := utf8.RuneLen(r)
		if pending {
			need++
		}
		if b.Len()+need > NameMax {
			break
		}
		if pending {
			b.WriteByte(' ')
		}
		space = false
		b.WriteRune(r)
	}
	return b.String()
}
