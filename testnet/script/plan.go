package script

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sort"
	"strings"
	"time"
)

// actionsMax bounds what a block may do.
const actionsMax = 20_000

// Options are what a run may choose about a scenario.
type Options struct {
	Peers int // 0: the scenario's own number
	Seed  uint64
	Short bool // blocks last as long as their scenario says for a short run
}

// Plan is a scenario with every choice made.
type Plan struct {
	Name, About string
	Seed        uint64
	Short       bool
	Peers       int
	Setting     Setting
	Network     Link
	Sites       []PlannedSite
	Stages      []Stage // one after the other
}

// PlannedSite is a site with its peers.
type PlannedSite struct {
	Name  string
	NAT   string
	Link  Link
	Peers []int
}

// Stage is one step, or a block of which each action begins at its time, whether or not those before it have ended.
type Stage struct {
	Line    int
	Text    string
	Block   bool
	Lasts   time.Duration // of a block
	Actions []Action      // by time
}

// Action is something that happens to certain peers, which are counted from 0.
type Action struct {
	Step
	When  time.Duration // since the block began
	Peers []int
	Sides [][]int       // of a partition, a link or an expectation about two
	Hold  time.Duration // how long a fault lasts before it is undone; 0: until another step undoes it
	Seed  uint64
}

// Plan makes every choice of the scenario. The same scenario and options always give the same plan.
func (s Scenario) Plan(opt Options) (Plan, error) {
	n := opt.Peers
	if n == 0 {
		if n = s.Peers; opt.Short && s.Short > 0 {
			n = s.Short
		}
	}
	if n < s.Least || n > PeersMax {
		return Plan{}, fmt.Errorf("%s: it needs %d to %d peers, not %d", s.Name, s.Least, PeersMax, n)
	}
	p := &planner{seed: opt.Seed, view: view{states: make([]state, n), sites: map[string][]int{}}, until: make([]time.Duration, n), made: map[string][]string{}}
	plan := Plan{Name: s.Name, About: s.About, Seed: opt.Seed, Short: opt.Short, Peers: n, Setting: s.Setting, Network: s.Network}
	for _, site := range s.Sites {
		peers, err := p.site(site)
		if err != nil {
			return Plan{}, &Error{s.Name, site.Line, err.Error()}
		}
		plan.Sites = append(plan.Sites, PlannedSite{site.Name, site.NAT, site.Link, peers})
	}
	p.view.taken = nil
	for _, step := range s.Steps {
		stage, err := p.stage(step, opt.Short)
		if err != nil {
			return Plan{}, &Error{s.Name, step.Line, err.Error()}
		}
		plan.Stages = append(plan.Stages, stage)
	}
	return plan, nil
}

// Has reports whether a verb is among the plan's actions.
func (p Plan) Has(verb string) bool {
	for _, s := range p.Stages {
		for _, a := range s.Actions {
			if a.Verb == verb {
				return true
			}
		}
	}
	return false
}

// HasDisk reports whether a disk becomes that kind in the plan.
func (p Plan) HasDisk(kind string) bool {
	for _, s := range p.Stages {
		for _, a := range s.Actions {
			if a.Verb == "disk" && a.Arg == kind {
				return true
			}
		}
	}
	return false
}

// planner is what is known of the peers while the plan is made.
type planner struct {
	seed  uint64
	view  view
	until []time.Duration     // in a block: when a peer that is down or paused comes back; 0: not by itself
	made  map[string][]string // names of data and jobs by what the scenario calls them
}

// random returns the chance of the n-th time of a line: what other lines do does not change it.
func (p *planner) random(line, n int) *rand.Rand {
	return rand.New(rand.NewPCG(p.seed, uint64(line)<<32|uint64(n)))
}

// site chooses a site's peers; those of earlier sites are taken.
func (p *planner) site(s Site) ([]int, error) {
	v := view{states: slices.Repeat([]state{stateUp}, len(p.view.states)), taken: p.view.taken}
	peers, err := s.Peers.choose(v, p.random(s.Line, 0))
	if err != nil {
		return nil, err
	}
	for _, i := range peers {
		if slices.Contains(p.view.taken, i) {
			return nil, fmt.Errorf("p%d is in two sites", i+1)
		}
	}
	p.view.taken = append(p.view.taken, peers...)
	p.view.sites[s.Name] = peers
	return peers, nil
}

func (p *planner) stage(step Step, short bool) (Stage, error) {
	if step.Verb == "during" {
		return p.block(step, short)
	}
	a, err := p.action(step, 0, 0)
	if err != nil {
		return Stage{}, err
	}
	if a == nil {
		return Stage{}, fmt.Errorf("there is nobody whom `%s` could be about by then", step)
	}
	p.recover(1 << 62)
	return Stage{Line: step.Line, Text: step.String(), Actions: []Action{*a}}, nil
}

// moment is a step at its time.
type moment struct {
	at   time.Duration
	n    int // the how manieth of its line
	step Step
}

func (p *planner) block(step Step, short bool) (Stage, error) {
	lasts := step.Lasts
	if short {
		lasts = step.Brief
	}
	var all []moment
	for _, inner := range step.Body {
		all = append(all, p.moments(inner, lasts)...)
	}
	if len(all) > actionsMax {
		return Stage{}, fmt.Errorf("%d things would happen in this block; %d are the most", len(all), actionsMax)
	}
	sort.SliceStable(all, func(i, j int) bool { return all[i].at < all[j].at })
	out := Stage{Line: step.Line, Text: step.String(), Block: true, Lasts: lasts}
	early := map[string]error{} // what was spoken of before it was there
	for _, m := range all {
		p.recover(m.at)
		a, err := p.action(m.step, m.n, m.at)
		if errors.Is(err, errNotYet) {
			early[m.step.Name] = fmt.Errorf("`%s` (line %d): %w", m.step, m.step.Line, err)
			continue
		}
		if err != nil {
			return Stage{}, fmt.Errorf("`%s` (line %d): %w", m.step, m.step.Line, err)
		}
		if a != nil {
			out.Actions = append(out.Actions, *a)
		}
	}
	for name, err := range early {
		if len(p.made[name]) == 0 {
			return Stage{}, err
		}
	}
	p.recover(1 << 62)
	return out, nil
}

// moments are the times at which a step of a block happens.
func (p *planner) moments(s Step, lasts time.Duration) (out []moment) {
	random := p.random(s.Line, 0)
	switch {
	case s.Verb == "churn":
		return p.churn(s, lasts, random)
	case !s.At.zero():
		if at := s.At.pick(random); at < lasts {
			out = append(out, moment{at, 1, s})
		}
	default:
		for at := s.Every.pick(random); at < lasts && len(out) <= actionsMax; at += s.Every.pick(random) {
			out = append(out, moment{at, len(out) + 1, s})
		}
	}
	return out
}

// churn spreads kills over the block: one in each of as many equal parts of it as there are kills.
func (p *planner) churn(s Step, lasts time.Duration, random *rand.Rand) (out []moment) {
	kills := int(s.Share*float64(len(p.view.states))*float64(lasts)/float64(s.Per) + 0.5)
	one := s
	one.Verb, one.Share, one.Per = "kill", 0, 0
	one.On = Set{[]Term{{Kind: termAny, A: 1}}}
	for n := range min(kills, actionsMax+1) {
		part := lasts / time.Duration(kills)
		out = append(out, moment{part*time.Duration(n) + time.Duration(random.Int64N(int64(part)+1)), n + 1, one})
	}
	return out
}

func (s Span) pick(random *rand.Rand) time.Duration {
	if s.Most == s.Least {
		return s.Least
	}
	return (s.Least + time.Duration(random.Int64N(int64(s.Most-s.Least)+1))).Round(time.Millisecond)
}

// recover lets those come back whose time it is.
func (p *planner) recover(now time.Duration) {
	for i, t := range p.until {
		if t > 0 && t <= now {
			p.view.states[i], p.until[i] = stateUp, 0
		}
	}
}

// action chooses a step's peers. It is nil when there is nobody.
func (p *planner) action(s Step, n int, at time.Duration) (*Action, error) {
	random := p.random(s.Line, n+1)
	a := &Action{Step: s, When: at, Seed: random.Uint64()}
	if !s.For.zero() {
		a.Hold = s.For.pick(random)
	}
	if err := p.choose(a, random); err != nil {
		return nil, err
	}
	if len(a.Peers) == 0 && !s.On.zero() {
		return nil, nil
	}
	if err := p.names(a, n, random); err != nil {
		return nil, err
	}
	p.apply(a, at)
	return a, nil
}

// choose fills in who it is about.
func (p *planner) choose(a *Action, random *rand.Rand) (err error) {
	if a.Verb == "expect" && !a.On.zero() { // by the rest: by all that it is not about
		if p.view.taken, err = a.On.choose(p.view, random); err != nil {
			return err
		}
	}
	for _, g := range a.Groups {
		side, err := g.choose(p.view, random)
		if err != nil {
			return err
		}
		if len(side) == 0 {
			return fmt.Errorf("nobody is in %s", g)
		}
		a.Sides = append(a.Sides, side)
		p.view.taken = append(p.view.taken, side...)
	}
	p.view.taken = nil
	if a.On.zero() {
		return nil
	}
	if a.Peers, err = a.On.choose(p.view, random); err != nil {
		return err
	}
	if states := needs[a.Verb]; states != nil {
		a.Peers = slices.DeleteFunc(a.Peers, func(i int) bool { return !slices.Contains(states, p.view.states[i]) })
	}
	if len(a.Peers) > 1 && slices.Contains(alone, a.Verb) {
		return fmt.Errorf("%s is done by one peer, and %s are %d", a.Verb, a.On, len(a.Peers))
	}
	return nil
}

// needs says in which states peers must be for a verb; others of the set are passed over.
var needs = map[string][]state{
	"start": {stateNew, stateDown}, "join": {stateUp}, "leave": {stateUp}, "upgrade": {stateUp},
	"stop": {stateUp, statePaused}, "kill": {stateUp, statePaused}, "pause": {stateUp}, "resume": {statePaused},
	"share": {stateUp}, "put": {stateUp}, "get": {stateUp}, "read": {stateUp}, "run": {stateUp}, "map": {stateUp},
	"evil": {stateUp}, "clock": {stateUp},
}

// alone are the verbs that are about one peer.
var alone = []string{"share", "put", "run", "map"}

// names gives what a step makes a name of its own, and finds what it speaks of.
func (p *planner) names(a *Action, n int, random *rand.Rand) error {
	switch a.Verb {
	case "share", "put", "run", "map":
		base := a.Name
		if n > 0 {
			a.Name = fmt.Sprintf("%s-%d", base, n)
		} else if slices.Contains(p.made[base], base) {
			return fmt.Errorf("%s is there already", base)
		}
		p.made[base] = append(p.made[base], a.Name)
	case "get", "read", "await", "expect":
		if a.Name == "" {
			return nil
		}
		known := p.made[a.Name]
		if len(known) == 0 {
			return fmt.Errorf("%w %s by then; there is %s", errNotYet, a.Name, p.known())
		}
		if n > 0 {
			a.Name = known[random.IntN(len(known))]
		}
	}
	return nil
}

// errNotYet is no mistake in a block, whose other steps may make the name in time.
var errNotYet = errors.New("nothing is called")

func (p *planner) known() string {
	var names []string
	for name := range p.made {
		names = append(names, name)
	}
	if len(names) == 0 {
		return "nothing yet"
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// apply notes what becomes of the peers.
func (p *planner) apply(a *Action, at time.Duration) {
	next := map[string]state{"start": stateUp, "resume": stateUp, "stop": stateDown, "kill": stateDown, "pause": statePaused, "leave": stateLeft}
	to, ok := next[a.Verb]
	if a.Verb == "evil" && a.Arg != "liar" { // its member is no more: a hostile program has its place
		to, ok = stateLeft, true
	}
	if !ok {
		return
	}
	for _, i := range a.Peers {
		p.view.states[i], p.until[i] = to, 0
		if a.Hold > 0 && to != stateUp && to != stateLeft {
			p.until[i] = at + a.Hold
		}
	}
}
