package script

import (
	"maps"
	"slices"
	"strconv"
	"time"
)

// verb is how a step is read and printed.
type verb struct {
	read        func(*reader, *Step)
	print       func(s Step, add func(...string))
	inBlock     bool // may stand in a block
	onlyInBlock bool
	untimed     bool // says itself when things happen
}

// Verbs lists the steps that there are.
func Verbs() []string { return slices.Sorted(maps.Keys(verbs)) }

// Enemies are the kinds of hostile peers.
var Enemies = []string{"liar", "forger", "flooder"}

// Disks are what a disk can be.
var Disks = []string{"full", "slow", "ok"}

// Expectations, by what follows their name: nothing, a set, two sets, or the name of data or of a job.
var (
	expectPlain = []string{"together", "names", "safe", "unmoved"}
	expectOn    = []string{"away", "alone"} // with `by` and a set: as these see it
	expectPair  = []string{"direct", "relayed"}
	expectName  = []string{"done"}
	expectTasks = []string{"works", "passed"} // the name of a job, and a set
)

var verbs = map[string]verb{
	"start": onSet(),
	"join": {
		read:    func(p *reader, s *Step) { s.On, s.Within = p.set(), p.within() },
		print:   func(s Step, add func(...string)) { add(s.On.String()); printWithin(s, add) },
		inBlock: true,
	},
	"leave":   onSet(),
	"resume":  onSet(),
	"upgrade": onSet(),
	"stop":    fault(),
	"kill":    fault(),
	"pause":   fault(),
	"heal": {
		read: func(*reader, *Step) {}, print: func(Step, func(...string)) {}, inBlock: true,
	},
	"partition": {read: readPartition, print: printPartition, inBlock: true},
	"link":      {read: readLink, print: printLink, inBlock: true},
	"share":     {read: readData, print: printData, inBlock: true},
	"put":       {read: readData, print: printData, inBlock: true},
	"get":       {read: readFetch, print: printFetch, inBlock: true},
	"read":      {read: readFetch, print: printFetch, inBlock: true},
	"run":       {read: readJob, print: printJob, inBlock: true},
	"map":       {read: readJob, print: printJob, inBlock: true},
	"await": {
		read:  func(p *reader, s *Step) { s.Name = p.name("the job's name"); s.Within = p.within() },
		print: func(s Step, add func(...string)) { add(s.Name); printWithin(s, add) },
	},
	"wait": {
		read:  func(p *reader, s *Step) { s.For = p.span("how long") },
		print: func(s Step, add func(...string)) { add(s.For.String()) },
	},
	"disk": {
		read: func(p *reader, s *Step) {
			s.On, s.Arg, s.For = p.set(), p.oneOf("what the disk is", Disks), p.lasting()
		},
		print:   func(s Step, add func(...string)) { add(s.On.String(), s.Arg); printFor(s, add) },
		inBlock: true,
	},
	"clock": {
		read: func(p *reader, s *Step) {
			s.On = p.set()
			w := p.word("by how much, as +2h or -90s")
			sign := time.Duration(1)
			switch {
			case len(w) > 1 && w[0] == '-':
				sign = -1
			case len(w) < 2 || w[0] != '+':
				p.fail("%q is no jump of a clock: write +2h or -90s", w)
				return
			}
			d, err := duration(w[1:])
			if err != nil {
				p.fail("%v", err)
			}
			s.Shift = sign * d
		},
		print: func(s Step, add func(...string)) {
			if s.Shift < 0 {
				add(s.On.String(), "-"+durationText(-s.Shift))
			} else {
				add(s.On.String(), "+"+durationText(s.Shift))
			}
		},
		inBlock: true,
	},
	"evil": {
		read: func(p *reader, s *Step) {
			s.Arg = p.oneOf("the kind of enemy", Enemies)
			p.expect("on")
			s.On = p.set()
			s.For = p.lasting()
		},
		print:   func(s Step, add func(...string)) { add(s.Arg, "on", s.On.String()); printFor(s, add) },
		inBlock: true,
	},
	"expect": {read: readExpect, print: printExpect},
	"during": {
		read: func(p *reader, s *Step) {
			s.Lasts = p.duration("how long the block lasts")
			if s.Brief = s.Lasts; p.take("short") {
				s.Brief = p.duration("how long it lasts in a short run")
			}
			if p.err == nil && (s.Lasts == 0 || s.Brief == 0 || s.Brief > s.Lasts) {
				p.fail("a block lasts for some time, and a short one not for longer")
			}
		},
		print:   func(s Step, add func(...string)) { add(durationText(s.Lasts), "short", durationText(s.Brief)) },
		untimed: true,
	},
	"churn": {
		read: func(p *reader, s *Step) {
			w := p.word("how many of the peers, as 30%")
			part, err := parsePart(w)
			if err != nil {
				p.fail("%v", err)
			}
			s.Share = part
			p.expect("per")
			s.Per = p.duration("in which time")
			if p.err == nil && (s.Per < time.Second || s.Share == 0) {
				p.fail("churn is a part of the peers in a second or more")
			}
			if p.expect("for"); p.err == nil {
				s.For = p.span("how long each is gone")
			}
		},
		print: func(s Step, add func(...string)) {
			add(strconv.FormatFloat(s.Share*100, 'f', -1, 64)+"%", "per", durationText(s.Per), "for", s.For.String())
		},
		inBlock: true, onlyInBlock: true, untimed: true,
	},
}

func onSet() verb {
	return verb{
		read:    func(p *reader, s *Step) { s.On = p.set() },
		print:   func(s Step, add func(...string)) { add(s.On.String()) },
		inBlock: true,
	}
}

func fault() verb {
	return verb{
		read:    func(p *reader, s *Step) { s.On, s.For = p.set(), p.lasting() },
		print:   func(s Step, add func(...string)) { add(s.On.String()); printFor(s, add) },
		inBlock: true,
	}
}

func printFor(s Step, add func(...string)) {
	if !s.For.zero() {
		add("for", s.For.String())
	}
}

func printWithin(s Step, add func(...string)) {
	if s.Within > 0 {
		add("within", durationText(s.Within))
	}
}

func readPartition(p *reader, s *Step) {
	s.Groups = append(s.Groups, p.set())
	for p.take("|") {
		s.Groups = append(s.Groups, p.set())
	}
	if p.err == nil && len(s.Groups) < 2 {
		p.fail("a partition has two sides or more: partition p1,p2 | rest")
	}
	s.For = p.lasting()
}

func printPartition(s Step, add func(...string)) {
	for i, g := range s.Groups {
		if i > 0 {
			add("|")
		}
		add(g.String())
	}
	printFor(s, add)
}

func readLink(p *reader, s *Step) {
	s.Groups = []Set{p.set(), p.set()}
	s.Link = p.link(nil)
	s.For = p.lasting()
}

func printLink(s Step, add func(...string)) {
	add(s.Groups[0].String(), s.Groups[1].String())
	add(s.Link.words()...)
	printFor(s, add)
}

// words are a link's settings.
func (l Link) words() (out []string) {
	if l.Delay > 0 {
		out = append(out, "delay="+durationText(l.Delay))
	}
	if l.Jitter > 0 {
		out = append(out, "jitter="+durationText(l.Jitter))
	}
	if l.Loss > 0 {
		out = append(out, "loss="+strconv.FormatFloat(l.Loss*100, 'f', -1, 64)+"%")
	}
	if l.Rate > 0 {
		out = append(out, "rate="+rateText(l.Rate))
	}
	return out
}

func readData(p *reader, s *Step) {
	s.Name = p.name("the data's name")
	p.expect("on")
	s.On = p.set()
	s.Files, s.Size = 1, Sizes{64 << 10, 64 << 10}
	p.keys(map[string]func(string) error{
		"files":  func(v string) (err error) { s.Files, err = number(v, filesMax); return err },
		"size":   func(v string) (err error) { s.Size, err = sizes(v); return err },
		"copies": func(v string) (err error) { s.Copies, err = number(v, 16); return err },
	})
	if p.err == nil && int64(s.Files)*s.Size.Most > sizeMax {
		p.fail("that is more than %s in one step", sizeText(sizeMax))
	}
	s.Within = p.within()
}

func printData(s Step, add func(...string)) {
	add(s.Name, "on", s.On.String(), "files="+strconv.Itoa(s.Files), "size="+s.Size.String())
	if s.Copies > 0 {
		add("copies=" + strconv.Itoa(s.Copies))
	}
	printWithin(s, add)
}

func readFetch(p *reader, s *Step) {
	s.Name = p.name("the data's name")
	p.expect("on")
	s.On, s.Within = p.set(), p.within()
}

func printFetch(s Step, add func(...string)) {
	add(s.Name, "on", s.On.String())
	printWithin(s, add)
}

func readJob(p *reader, s *Step) {
	s.Name = p.name("the job's name")
	p.expect("on")
	s.On, s.Tasks = p.set(), 1
	known := map[string]func(string) error{"last": func(v string) (err error) { s.Last, err = duration(v); return err }}
	if s.Verb == "map" {
		known["tasks"] = func(v string) (err error) { s.Tasks, err = number(v, filesMax); return err }
	}
	p.keys(known)
	s.Within = p.within()
}

func printJob(s Step, add func(...string)) {
	add(s.Name, "on", s.On.String())
	if s.Verb == "map" {
		add("tasks=" + strconv.Itoa(s.Tasks))
	}
	if s.Last > 0 {
		add("last=" + durationText(s.Last))
	}
	printWithin(s, add)
}

func readExpect(p *reader, s *Step) {
	s.Arg = p.oneOf("what is expected", slices.Concat(expectPlain, expectOn, expectPair, expectName, expectTasks))
	switch {
	case slices.Contains(expectOn, s.Arg):
		s.On = p.set()
		if p.take("by") {
			s.Groups = []Set{p.set()}
		}
	case slices.Contains(expectPair, s.Arg):
		s.Groups = []Set{p.set(), p.set()}
	case slices.Contains(expectName, s.Arg):
		s.Name = p.name("the job's name")
	case slices.Contains(expectTasks, s.Arg):
		s.Name = p.name("the job's name")
		p.expect("on")
		s.On = p.set()
	}
	s.Within = p.within()
}

func printExpect(s Step, add func(...string)) {
	add(s.Arg)
	if slices.Contains(expectTasks, s.Arg) {
		add(s.Name, "on", s.On.String())
		printWithin(s, add)
		return
	}
	if !s.On.zero() {
		add(s.On.String())
	}
	for _, g := range s.Groups {
		if !s.On.zero() {
			add("by")
		}
		add(g.String())
	}
	if s.Name != "" {
		add(s.Name)
	}
	printWithin(s, add)
}
