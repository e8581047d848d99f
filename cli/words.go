package cli

import (
	"strings"
)

// splitWords splits a command line as a shell does, with quotes and backslashes and nothing else: what is expanded was so by
// the shell that the whole was typed into.
func splitWords(text string) (out []string, err error) {
	var word strings.Builder
	var quote rune
	inWord, escaped := false, false
	for _, r := range text {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case r == '\\' && quote != '\'':
			escaped, inWord = true, true
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quote, inWord = r, true
		case r == ' ' || r == '\t' || r == '\n':
			if inWord {
				out = append(out, word.String())
				word.Reset()
			}
			inWord = false
		default:
			word.WriteRune(r)
			inWord = true
		}
	}
	if quote != 0 || escaped {
		return nil, usagef("", "%q: the quotes do not match", clean(text))
	}
	if inWord {
		out = append(out, word.String())
	}
	return out, nil
}
