package script

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Parse reads a scenario. The error is an *Error that names the line.
func Parse(name, source string) (Scenario, error) {
	s := Scenario{Name: name, Peers: 3, Least: 1}
	fail := func(line int, err error) (Scenario, error) {
		return Scenario{}, &Error{name, line, err.Error()}
	}
	if len(source) > SourceMax {
		return fail(1, fmt.Errorf("a scenario may have %d bytes, and this one has %d", SourceMax, len(source)))
	}
	if !utf8.ValidString(source) {
		return fail(1, fmt.Errorf("a scenario is UTF-8 text"))
	}
	var block *Step // the open one
	count := 0
	for i, text := range strings.Split(source, "\n") {
		words, err := split(text)
		if err != nil {
			return fail(i+1, err)
		}
		if len(words) == 0 {
			continue
		}
		if ok, err := s.header(i+1, words, len(s.Steps) > 0 || block != nil); err != nil {
			return fail(i+1, err)
		} else if ok {
			continue
		}
		if words[0] == "end" {
			if block == nil || len(words) > 1 {
				return fail(i+1, fmt.Errorf("end stands alone and ends a block, which `during` begins"))
			}
			if len(block.Body) == 0 {
				return fail(block.Line, fmt.Errorf("nothing happens in this block"))
			}
			s.Steps, block = append(s.Steps, *block), nil
			continue
		}
		if count++; count > stepsMax {
			return fail(i+1, fmt.Errorf("a scenario may have %d steps", stepsMax))
		}
		step, err := parseStep(i+1, words, block)
		switch {
		case err != nil:
			return fail(i+1, err)
		case step.Verb == "during":
			block = &step
		case block != nil:
			block.Body = append(block.Body, step)
		default:
			s.Steps = append(s.Steps, step)
		}
	}
	switch {
	case block != nil:
		return fail(block.Line, fmt.Errorf("the block has no end"))
	case len(s.Steps) == 0:
		return fail(1, fmt.Errorf("the scenario has no steps"))
	case s.Peers < s.Least:
		return fail(1, fmt.Errorf("%d peers, and at least %d are needed", s.Peers, s.Least))
	}
	return s, nil
}

// split cuts a line into words. A word in double quotes may hold spaces; # at the beginning of a word begins a comment.
func split(line string) (words []string, err error) {
	for {
		line = strings.TrimLeftFunc(line, unicode.IsSpace)
		switch {
		case line == "", line[0] == '#':
			return words, nil
		case line[0] == '"':
			text, rest, ok := strings.Cut(line[1:], `"`)
			if !ok {
				return nil, fmt.Errorf("the quotes are not closed")
			}
			words, line = append(words, text), rest
		default:
			end := strings.IndexFunc(line, unicode.IsSpace)
			if end < 0 {
				end = len(line)
			}
			words, line = append(words, line[:end]), line[end:]
		}
	}
}

// header reads the lines that stand before the steps.
func (s *Scenario) header(line int, words []string, late bool) (ok bool, err error) {
	p := &reader{words: words[1:], line: line}
	switch words[0] {
	case "about":
		s.About = strings.Join(words[1:], " ")
		p.words = nil
	case "peers":
		s.Peers, s.Setting = p.count("the number of peers", PeersMax), Setting{}
		s.Least = 1
		p.keys(map[string]func(string) error{
			"short":    func(v string) (err error) { s.Short, err = number(v, PeersMax); return err },
			"least":    func(v string) (err error) { s.Least, err = number(v, PeersMax); return err },
			"store":    func(v string) (err error) { s.Setting.Store, err = size(v); return err },
			"rss":      func(v string) (err error) { s.Setting.RSS, err = size(v); return err },
			"patience": func(v string) (err error) { s.Setting.Patience, err = duration(v); return err },
			"cores":    func(v string) (err error) { s.Setting.Cores, err = number(v, coresMax); return err },
			"reading":  func(v string) (err error) { s.Setting.Reading, err = duration(v); return err },
		})
	case "network":
		s.Network = p.link(nil)
	case "site":
		site := Site{Line: line, Name: p.name("the site's name"), Peers: p.set()}
		site.Link = p.link(map[string]func(string) error{"nat": func(v string) error { site.NAT = v; return oneOf(v, NATs) }})
		if p.err == nil && slices.ContainsFunc(s.Sites, func(o Site) bool { return o.Name == site.Name }) {
			p.fail("the site %q is there twice", site.Name)
		}
		s.Sites = append(s.Sites, site)
	default:
		return false, nil
	}
	if late && words[0] != "about" {
		return true, fmt.Errorf("%q stands before the first step", words[0])
	}
	return true, p.end()
}

// NATs are the kinds of what may stand between a site and the others: cone lets everybody in where one was let out, port
// only whom was sent to, symmetric gives each correspondent another port.
var NATs = []string{"cone", "port", "symmetric"}

// parseStep reads one step; block is the one that it stands in.
func parseStep(line int, words []string, block *Step) (Step, error) {
	s := Step{Line: line}
	p := &reader{words: words, line: line}
	if block != nil {
		switch p.peek() {
		case "every":
			p.word("")
			s.Every = p.span("how often")
		case "at":
			p.word("")
			s.At = p.span("when")
		}
		if p.err == nil && (!s.Every.zero() && s.Every.Least < 50*time.Millisecond || s.At.Most > block.Lasts) {
			p.fail("steps come at most 20 times a second, and not after the block's end")
		}
	}
	if p.peek() == "try" {
		p.word("")
		s.Try = true
	}
	s.Verb = p.word("what happens")
	v, ok := verbs[s.Verb]
	switch {
	case p.err != nil:
		return s, p.err
	case !ok:
		return s, fmt.Errorf("there is no step %q; there are %s", s.Verb, strings.Join(Verbs(), ", "))
	case block != nil && !v.inBlock:
		return s, fmt.Errorf("%s cannot stand in a block", s.Verb)
	case block == nil && v.onlyInBlock:
		return s, fmt.Errorf("%s stands in a block: `during 1m`, this line, `end`", s.Verb)
	case block != nil && !v.untimed && s.Every.zero() && s.At.zero():
		return s, fmt.Errorf("a step in a block says when: every 2s %s …, or at 10s %s …", s.Verb, s.Verb)
	case v.untimed && (!s.Every.zero() || !s.At.zero() || s.Try):
		return s, fmt.Errorf("%s stands at the beginning of its line", s.Verb)
	}
	v.read(p, &s)
	return s, p.end()
}
