package market

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/golden"
	"github.com/shoal-os/shoal/tasks/job"
)

// TestTranscripts plays testdata/*.txt: a line is something that happens, and what follows indented is what the market
// does. "go test -update" writes the answers; read the diff. Renewals are not shown.
//
//	job 3 [exclusive] [reduce] [failures=2]   of 3 tasks
//	steward s1 s2 s3
//	worker w1 [cores=2] [battery=50]
//	0s lead s1 1              s1 leads the group from term 1 on
//	1s end w1 0               the attempt at task 0 on w1 has ended well; "fail w1 0", "break w1 0" otherwise
//	1s kill w1 / start w1     -9, and again with an empty memory; stewards too
//	1s sleep w1 8h            suspended without a word; "doze s1 30s" of a steward
//	1s cut w1 s1 / mend w1 s1 the link; "part w1 s1" breaks the connection and lets it be made again
//	1s stall / flow           the log takes nothing / goes on
//	1s again                  the last entry of the log comes once more
//	1s forge w2 0=1.9         a result of w2 for that attempt comes into the log past the steward
//	1s mine w1 on|off / lid w1 / cancel / tick
func TestTranscripts(t *testing.T) { golden.Transcripts(t, perform) }

// perform plays a script and returns it with today's answers.
func perform(t *testing.T, lines []string) []byte {
	var out bytes.Buffer
	var p *play
	for _, line := range lines {
		words := strings.Fields(line)
		var err error
		switch {
		case len(words) == 0 || words[0] == "#":
			fmt.Fprintln(&out, line)
		case words[0] == "job":
			fmt.Fprintln(&out, line)
			p = newPlay(t, &out, scriptJob(t, words[1:]))
		case words[0] == "steward" || words[0] == "worker":
			fmt.Fprintln(&out, line)
			err = p.cast(words)
		default:
			err = p.act(line, words)
		}
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
	}
	return out.Bytes()
}

func scriptJob(t *testing.T, words []string) *job.Signed {
	return testJob(t, func(s *job.Spec) {
		n, err := strconv.Atoi(words[0])
		if err != nil {
			t.Fatal(err)
		}
		s.Split.Count = uint32(n)
		for _, w := range words[1:] {
			switch {
			case w == "exclusive":
				s.Exclusive = true
			case w == "reduce":
				s.Reduce = &s.Command
			case strings.HasPrefix(w, "failures="):
				if s.Failures, err = strconv.Atoi(w[len("failures="):]); err != nil {
					t.Fatal(err)
				}
			default:
				t.Fatalf("unknown word %q", w)
			}
		}
	})
}

func (p *play) cast(words []string) error {
	if words[0] == "steward" {
		for _, n := range words[1:] {
			p.addSteward(peer.ID(n))
		}
		return nil
	}
	lends := Lends{Cores: 1, Memory: 64 << 30, Mains: true, Wasm: true}
	for _, w := range words[2:] {
		key, value, _ := strings.Cut(w, "=")
		n, err := strconv.Atoi(value)
		if err != nil {
			return err
		}
		switch key {
		case "cores":
			lends.Cores = n
		case "battery":
			lends.Mains, lends.Battery = false, n
		default:
			return fmt.Errorf("unknown word %q", w)
		}
	}
	p.addWorker(peer.ID(words[1]), lends)
	return nil
}

// act lets time pass up to a line, prints it, and does what it says.
func (p *play) act(line string, words []string) error {
	at, err := time.ParseDuration(words[0])
	if err != nil {
		return err
	}
	p.until(Moment(at) + 1)
	fmt.Fprintln(p.out, line)
	p.shown = at
	if words[1] == "worker" {
		return p.cast(words[1:])
	}
	if err := p.do(words[1], words[2:]); err != nil {
		return err
	}
	p.settle()
	p.until(p.now)
	return nil
}

func (p *play) do(verb string, args []string) error {
	id := peer.ID("")
	if len(args) > 0 {
		id = peer.ID(args[0])
	}
	w, s := p.workers[id], p.stewards[id]
	switch verb {
	case "tick", "":
	case "lead":
		term, err := strconv.ParseUint(args[1], 10, 64)
		if err != nil {
			return err
		}
		p.lead(id, term)
	case "end", "fail", "break":
		return p.doEnd(verb, w, args)
	case "kill":
		p.kill(id)
	case "start":
		if w != nil {
			p.startWorker(w)
		}
		if s != nil {
			s.dead, s.s = false, NewSteward(p.job.ID, id)
			p.catchUp(s, false)
		}
	case "sleep":
		d, err := time.ParseDuration(args[1])
		if err != nil {
			return err
		}
		p.sleep(w, d)
	case "doze":
		d, err := time.ParseDuration(args[1])
		if err != nil {
			return err
		}
		s.dead = true
		p.until(p.now.Add(d))
		s.dead = false
		p.stepSteward(s, StewardEvent{})
	case "cut", "mend", "part":
		return p.link(verb, id, peer.ID(args[1]))
	case "stall", "flow":
		p.stuck = verb == "stall"
	case "again":
		p.append(p.terms[len(p.terms)-1], p.log[len(p.log)-1])
	case "forge":
		var l Lease
		if _, err := fmt.Sscanf(args[1], "%d=%d.%d", &l.Task, &l.Token.Term, &l.Token.Seq); err != nil {
			return err
		}
		return p.force(Command{Kind: Finish, Lease: l, By: id, Data: testResult(p.t, "")})
	case "mine":
		p.stepWorker(w, WorkerEvent{Kind: Mine, On: args[1] == "on"})
	case "lid":
		p.stepWorker(w, WorkerEvent{Kind: Sleeping, On: true})
	case "cancel":
		return p.force(Command{Kind: Cancel, By: "submitter", Data: []byte("ctrl-C")})
	default:
		return fmt.Errorf("unknown verb")
	}
	return nil
}

// force puts a command into the log past the stewards.
func (p *play) force(c Command) error {
	data, err := EncodeBatch(time.UnixMilli(2_000_000), []Command{c})
	if err == nil {
		p.append(p.terms[len(p.terms)-1], data)
	}
	return err
}

func (p *play) doEnd(verb string, w *playWorker, args []string) error {
	task, err := strconv.ParseUint(args[1], 10, 32)
	if err != nil {
		return err
	}
	e := End{Ran: time.Second}
	switch verb {
	case "end":
		e.Result = testResult(p.t, "")
	case "fail":
		e.Result, e.Failed = testResult(p.t, "exit code 1"), true
	case "break":
		e.Why = Inputs
	}
	if len(args) > 2 {
		if e.Ran, err = time.ParseDuration(args[2]); err != nil {
			return err
		}
	}
	p.end(w, uint32(task), e)
	return nil
}

// sleep suspends a worker: nothing happens there, and nobody is told.
func (p *play) sleep(w *playWorker, d time.Duration) {
	w.slept = true
	at := p.now.Add(d)
	p.until(at)
	w.slept = false
	p.stepWorker(w, WorkerEvent{})
}

func (p *play) link(verb string, a, b peer.ID) error {
	switch verb {
	case "cut":
		p.cut[[2]peer.ID{a, b}] = true
	case "mend":
		delete(p.cut, [2]peer.ID{a, b})
	case "part":
		p.dropStreams(p.workers[a], b)
	}
	return nil
}
