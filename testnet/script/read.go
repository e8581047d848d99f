package script

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// reader takes the words of a line one after the other. After the first mistake its answers mean nothing, and err says
// what it was.
type reader struct {
	words []string
	line  int
	err   error
}

func (p *reader) fail(format string, args ...any) {
	if p.err == nil {
		p.err = fmt.Errorf(format, args...)
	}
}

func (p *reader) peek() string {
	if len(p.words) == 0 {
		return ""
	}
	return p.words[0]
}

// word takes the next word; what says what it is, for the error.
func (p *reader) word(what string) string {
	if len(p.words) == 0 {
		p.fail("%s is missing", what)
		return ""
	}
	w := p.words[0]
	p.words = p.words[1:]
	return w
}

// take takes the next word if it is this one.
func (p *reader) take(word string) bool {
	if p.peek() != word {
		return false
	}
	p.words = p.words[1:]
	return true
}

func (p *reader) expect(word string) {
	if !p.take(word) {
		p.fail("%q is missing before %q", word, p.peek())
	}
}

func (p *reader) end() error {
	if p.err == nil && len(p.words) > 0 {
		p.fail("%q is too much", p.words[0])
	}
	return p.err
}

func (p *reader) set() Set {
	w := p.word("who")
	if p.err != nil {
		return Set{}
	}
	s, err := parseSet(w)
	if err != nil {
		p.fail("%v", err)
	}
	return s
}

func (p *reader) name(what string) string {
	w := p.word(what)
	if p.err == nil && !isName(w) {
		p.fail("%s: %q is no name: it has letters, digits and hyphens, at most 40", what, w)
	}
	return w
}

// isName bounds names, which become names of files.
func isName(w string) bool {
	if w == "" || len(w) > 40 || w[0] == '-' {
		return false
	}
	for _, c := range w {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

func (p *reader) count(what string, most int) int {
	w := p.word(what)
	if p.err != nil {
		return 0
	}
	n, err := number(w, most)
	if err != nil {
		p.fail("%s: %v", what, err)
	}
	return n
}

func (p *reader) duration(what string) time.Duration {
	w := p.word(what)
	if p.err != nil {
		return 0
	}
	d, err := duration(w)
	if err != nil {
		p.fail("%s: %v", what, err)
	}
	return d
}

func (p *reader) span(what string) (s Span) {
	w := p.word(what)
	if p.err != nil {
		return s
	}
	s, err := span(w)
	if err != nil {
		p.fail("%s: %v", what, err)
	}
	return s
}

// lasting takes `for SPAN` if it is there.
func (p *reader) lasting() Span {
	if p.take("for") {
		return p.span("for how long")
	}
	return Span{}
}

// within takes `within DURATION` if it is there.
func (p *reader) within() time.Duration {
	if p.take("within") {
		return p.duration("how soon")
	}
	return 0
}

// oneOf takes a word of a list.
func (p *reader) oneOf(what string, words []string) string {
	w := p.word(what)
	if p.err == nil {
		if err := oneOf(w, words); err != nil {
			p.fail("%v", err)
		}
	}
	return w
}

func oneOf(w string, words []string) error {
	if !slices.Contains(words, w) {
		return fmt.Errorf("%q is none of %s", w, strings.Join(words, ", "))
	}
	return nil
}

// keys takes words of the form key=value for as long as there are any; each key may be there once.
func (p *reader) keys(known map[string]func(string) error) {
	seen := map[string]bool{}
	for p.err == nil {
		key, value, ok := strings.Cut(p.peek(), "=")
		if !ok {
			return
		}
		set := known[key]
		if set == nil {
			names := make([]string, 0, len(known))
			for name := range known {
				names = append(names, name)
			}
			slices.Sort(names)
			p.fail("there is no setting %q here; there are %s", key, strings.Join(names, ", "))
			return
		}
		if seen[key] {
			p.fail("%s is there twice", key)
			return
		}
		seen[key] = true
		p.words = p.words[1:]
		if err := set(value); err != nil {
			p.fail("%s: %v", key, err)
		}
	}
}

// link takes the settings of a link, with others beside them.
func (p *reader) link(more map[string]func(string) error) (l Link) {
	known := map[string]func(string) error{
		"delay":  func(v string) (err error) { l.Delay, err = duration(v); return err },
		"jitter": func(v string) (err error) { l.Jitter, err = duration(v); return err },
		"loss":   func(v string) (err error) { l.Loss, err = parsePart(v); return err },
		"rate":   func(v string) (err error) { l.Rate, err = rate(v); return err },
	}
	for k, set := range more {
		known[k] = set
	}
	p.keys(known)
	if l.Delay > 10*time.Second || l.Jitter > 10*time.Second {
		p.fail("delay and jitter are at most 10s")
	}
	return l
}

func number(v string, most int) (int, error) {
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 || n > most || v[0] == '+' {
		return 0, fmt.Errorf("%q is no number from 1 to %d", v, most)
	}
	return n, nil
}

func duration(v string) (time.Duration, error) {
	d, err := time.ParseDuration(v)
	if err != nil || d < 0 || d > timeMax {
		return 0, fmt.Errorf("%q is no duration, as 500ms, 10s or 2m, of at most %s", v, durationText(timeMax))
	}
	return d, nil
}

func span(v string) (s Span, err error) {
	first, last, ranged := strings.Cut(v, "..")
	if s.Least, err = duration(first); err != nil {
		return s, err
	}
	if s.Most = s.Least; ranged {
		s.Most, err = duration(last)
	}
	if err == nil && (s.Most < s.Least || s.Most == 0) {
		err = fmt.Errorf("%q is empty or goes backwards", v)
	}
	return s, err
}

func size(v string) (int64, error) {
	for _, u := range units {
		if digits, ok := strings.CutSuffix(v, u.name); ok {
			n, err := strconv.ParseInt(digits, 10, 64)
			if err != nil || n < 0 || n > sizeMax/u.bytes || digits[0] == '+' {
				break
			}
			return n * u.bytes, nil
		}
	}
	return 0, fmt.Errorf("%q is no size, as 100B, 64KiB or 2MiB, of at most %s", v, sizeText(sizeMax))
}

func sizes(v string) (s Sizes, err error) {
	first, last, ranged := strings.Cut(v, "..")
	if s.Least, err = size(first); err != nil {
		return s, err
	}
	if s.Most = s.Least; ranged {
		s.Most, err = size(last)
	}
	if err == nil && s.Most < s.Least {
		err = fmt.Errorf("%q goes backwards", v)
	}
	return s, err
}

// rate reads bits a second.
func rate(v string) (int64, error) {
	for _, u := range []struct {
		name string
		bits int64
	}{{"Gbit", 1e9}, {"Mbit", 1e6}, {"kbit", 1e3}} {
		if digits, ok := strings.CutSuffix(v, u.name); ok {
			n, err := strconv.ParseInt(digits, 10, 64)
			if err == nil && n >= 1 && n <= math.MaxInt64/u.bits && n*u.bits <= 100e9 {
				return n * u.bits, nil
			}
		}
	}
	return 0, errors.New(strconv.Quote(v) + " is no rate, as 20Mbit, of at most 100Gbit")
}

func rateText(n int64) string {
	switch {
	case n%1e9 == 0:
		return strconv.FormatInt(n/1e9, 10) + "Gbit"
	case n%1e6 == 0:
		return strconv.FormatInt(n/1e6, 10) + "Mbit"
	}
	return strconv.FormatInt(n/1e3, 10) + "kbit"
}
