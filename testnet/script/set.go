package script

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
)

// Set names peers. It is a list of terms, of which each adds peers; those that begin with ! take some away.
type Set struct{ Terms []Term }

// Term is one word of a set.
type Term struct {
	Kind  string  // a name of termKinds
	A, B  int     // peers: from A to B, counted from 1; any: A of them
	Part  float64 // share: that part of the peers, chosen by the seed
	Site  string
	Minus bool
}

// The kinds of terms.
const (
	termPeers  = "peers" // p3, p1..p5
	termAll    = "all"   // every peer that takes part
	termAny    = "any"   // one, chosen by the seed, that is up; any*3 is three
	termShare  = "share" // 30%
	termOthers = "rest"  // all that no other set of the step names
	termSite   = "site"  // site:home
	termNew    = "new"   // all that were not started yet
	termDown   = "down"  // all that are down
	termsMax   = 64      // of a set
)

func (s Set) zero() bool { return len(s.Terms) == 0 }

func (s Set) String() string {
	words := make([]string, len(s.Terms))
	for i, t := range s.Terms {
		words[i] = t.String()
	}
	return strings.Join(words, ",")
}

func (t Term) String() string {
	text := ""
	switch t.Kind {
	case termPeers:
		text = "p" + strconv.Itoa(t.A)
		if t.B != t.A {
			text += "..p" + strconv.Itoa(t.B)
		}
	case termAny:
		text = "any"
		if t.A != 1 {
			text += "*" + strconv.Itoa(t.A)
		}
	case termShare:
		text = strconv.FormatFloat(t.Part*100, 'f', -1, 64) + "%"
	case termSite:
		text = "site:" + t.Site
	default:
		text = t.Kind
	}
	if t.Minus {
		return "!" + text
	}
	return text
}

func parseSet(word string) (Set, error) {
	var s Set
	for _, text := range strings.Split(word, ",") {
		t, err := parseTerm(text)
		if err != nil {
			return Set{}, err
		}
		s.Terms = append(s.Terms, t)
	}
	if len(s.Terms) > termsMax {
		return Set{}, fmt.Errorf("more than %d parts in one set of peers", termsMax)
	}
	if s.Terms[0].Minus {
		return Set{}, fmt.Errorf("%q only takes peers away: begin with who is in it, as all,%s", word, word)
	}
	return s, nil
}

func parseTerm(text string) (t Term, err error) {
	rest, minus := strings.CutPrefix(text, "!")
	t.Minus = minus
	switch {
	case rest == termAll, rest == termOthers, rest == termNew, rest == termDown:
		t.Kind = rest
	case rest == "any":
		t.Kind, t.A = termAny, 1
	case strings.HasPrefix(rest, "any*"):
		t.Kind = termAny
		if t.A, err = strconv.Atoi(rest[4:]); err != nil || t.A < 1 || t.A > PeersMax {
			return t, fmt.Errorf("%q: any*N takes a number from 1 to %d", text, PeersMax)
		}
	case strings.HasPrefix(rest, "site:"):
		t.Kind, t.Site = termSite, rest[5:]
		if !isName(t.Site) {
			return t, fmt.Errorf("%q: a site's name has letters, digits and hyphens", text)
		}
	case strings.HasSuffix(rest, "%"):
		t.Kind = termShare
		if t.Part, err = parsePart(rest); err != nil {
			return t, err
		}
	case strings.HasPrefix(rest, "p"):
		t.Kind = termPeers
		first, last, ranged := strings.Cut(rest, "..")
		if t.A, err = parsePeer(first); err != nil {
			return t, err
		}
		if t.B = t.A; ranged {
			if t.B, err = parsePeer(last); err != nil {
				return t, err
			}
		}
		if t.B < t.A {
			return t, fmt.Errorf("%q goes backwards", text)
		}
	default:
		return t, fmt.Errorf("%q names no peers: write p1, p1..p5, all, any, any*3, 30%%, rest, new, down or site:NAME", text)
	}
	if t.Minus && (t.Kind == termAny || t.Kind == termShare) {
		return t, fmt.Errorf("%q: who is taken away cannot be left to chance", text)
	}
	return t, nil
}

func parsePeer(text string) (int, error) {
	digits, ok := strings.CutPrefix(text, "p")
	n, err := strconv.Atoi(digits)
	if !ok || err != nil || n < 1 || n > PeersMax || digits[0] == '+' {
		return 0, fmt.Errorf("%q is no peer: they are p1 to p%d", text, PeersMax)
	}
	return n, nil
}

// parsePart reads a percentage, in hundredths of a per cent.
func parsePart(text string) (float64, error) {
	digits, ok := strings.CutSuffix(text, "%")
	n, err := strconv.ParseFloat(digits, 64)
	if !ok || err != nil || !(n >= 0 && n <= 100) || math.Round(n*100) != n*100 {
		return 0, fmt.Errorf("%q is no percentage from 0%% to 100%%", text)
	}
	return n / 100, nil
}

// view is what a set may look at when its peers are chosen: each peer's planned state.
type view struct {
	states []state
	sites  map[string][]int
	taken  []int // by other sets of the same step
}

// state is what becomes of a peer by the plan.
type state byte

const (
	stateNew state = iota
	stateUp
	stateDown
	statePaused
	stateLeft
)

// choose returns the numbers of the peers in the set, from 0, sorted. Who is taken away is so before anybody is drawn.
func (s Set) choose(v view, random *rand.Rand) ([]int, error) {
	var in, out []int
	for _, t := range s.Terms {
		if t.Minus {
			named, err := t.choose(v, nil, random)
			if err != nil {
				return nil, err
			}
			out = append(out, named...)
		}
	}
	for _, t := range s.Terms {
		if !t.Minus {
			named, err := t.choose(v, append(in[:len(in):len(in)], out...), random)
			if err != nil {
				return nil, err
			}
			in = append(in, named...)
		}
	}
	in = slices.DeleteFunc(in, func(i int) bool { return slices.Contains(out, i) })
	slices.Sort(in)
	return slices.Compact(in), nil
}

// choose returns a term's peers. Those in not are never drawn.
func (t Term) choose(v view, not []int, random *rand.Rand) ([]int, error) {
	with := func(states ...state) (out []int) {
		for i, s := range v.states {
			if slices.Contains(states, s) {
				out = append(out, i)
			}
		}
		return out
	}
	switch t.Kind {
	case termPeers:
		if t.A > len(v.states) {
			return nil, fmt.Errorf("there is no p%d: the scenario runs with %d peers", t.A, len(v.states))
		}
		var out []int
		for i := t.A - 1; i < min(t.B, len(v.states)); i++ {
			out = append(out, i)
		}
		return out, nil
	case termAll:
		return with(stateNew, stateUp, stateDown, statePaused), nil
	case termNew:
		return with(stateNew), nil
	case termDown:
		return with(stateDown), nil
	case termOthers:
		out := with(stateNew, stateUp, stateDown, statePaused)
		return slices.DeleteFunc(out, func(i int) bool { return slices.Contains(v.taken, i) }), nil
	case termSite:
		peers, ok := v.sites[t.Site]
		if !ok {
			return nil, fmt.Errorf("there is no site %q", t.Site)
		}
		return peers, nil
	}
	// The rest is chance.
	pool := with(stateUp)
	pool = slices.DeleteFunc(pool, func(i int) bool { return slices.Contains(not, i) || slices.Contains(v.taken, i) })
	n := t.A
	if t.Kind == termShare {
		n = int(math.Round(t.Part * float64(len(with(stateUp, stateDown, statePaused)))))
	}
	random.Shuffle(len(pool), func(i, j int) { pool[i], pool[j] = pool[j], pool[i] })
	return pool[:min(n, len(pool))], nil
}

// SetOf is the set of certain peers, which are counted from 0 and sorted.
func SetOf(peers []int) (s Set) {
	for _, i := range peers {
		if n := len(s.Terms); n > 0 && s.Terms[n-1].B == i {
			s.Terms[n-1].B = i + 1
			continue
		}
		s.Terms = append(s.Terms, Term{Kind: termPeers, A: i + 1, B: i + 1})
	}
	return s
}
