package replica

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/shoal-os/shoal/dht/golden"
)

// tell adds a line to the transcript: when, which node, what.
func (x *node) tell(format string, args ...any) {
	if x.w.transcript != nil {
		fmt.Fprintf(x.w.transcript, "%7.1fms  node %d  %s\n", float64(x.w.Now.Microseconds())/1000, x.n, fmt.Sprintf(format, args...))
	}
}

// describe writes what a step led to.
func (x *node) describe(out Out) {
	if x.w.transcript == nil {
		return
	}
	for _, s := range out.Saves {
		how := "saves"
		if s.Whole {
			how = "saves all of its state"
		}
		if s.Sync {
			how += ", and waits for the disk"
		}
		x.tell("%s", how)
	}
	for _, m := range out.Send {
		to := x.w.byID(m.To)
		x.tell("→ node %d: %s", to.n, describeMessage(m))
	}
	for _, b := range out.Apply {
		what := fmt.Sprintf("applies up to %d: %d commands", b.Index, len(b.Commands))
		if b.Restore {
			what = fmt.Sprintf("restores a snapshot of %d", b.Index)
		}
		x.tell("%s", what)
	}
	if out.Changed {
		st := x.r.Status()
		leader := "nobody"
		if l := x.w.byID(st.Leader); l != nil {
			leader = fmt.Sprint("node ", l.n)
		}
		var notes []string
		for note, is := range map[string]bool{"ready to lead": st.Leading, "quiet": st.Quiet, "removed": st.Removed} {
			if is {
				notes = append(notes, note)
			}
		}
		slices.Sort(notes)
		x.tell("term %d, leader: %s %s", st.Term, leader, strings.Join(notes, ", "))
	}
}

func describeMessage(m Message) string {
	switch {
	case m.Quiet != nil:
		return fmt.Sprintf("quiet at %d", m.Quiet.Index)
	case m.Wake != nil:
		return "wake"
	case m.Gone != nil:
		return "gone: you may go"
	case m.Ask != nil:
		return fmt.Sprintf("ask %d in term %d", m.Ask.Seq, m.Ask.Term)
	case m.Told != nil:
		return fmt.Sprintf("told up to %d", m.Told.Seq)
	}
	r := m.Raft
	out := fmt.Sprintf("%s, term %d", strings.TrimPrefix(r.GetType().String(), "Msg"), r.GetTerm())
	switch r.GetType() {
	case raftpb.MsgApp:
		out += fmt.Sprintf(", %d entries after %d, committed %d", len(r.GetEntries()), r.GetIndex(), r.GetCommit())
	case raftpb.MsgAppResp:
		out += fmt.Sprintf(", up to %d", r.GetIndex())
	case raftpb.MsgSnap:
		out += fmt.Sprintf(", at %d", r.GetSnapshot().GetMetadata().GetIndex())
	}
	if r.GetReject() {
		out += ", rejected"
	}
	return out
}

// The scenarios, each on three replicas with a network and disks that take a millisecond.
var scenarios = map[string]func(w *world, title func(string)){
	"found": func(w *world, title func(string)) {
		w.run(50 * time.Millisecond) // node 0 founds the group; the others know nothing but their numbers, and get the members as a snapshot
		title("node 0, which leads, is given a command")
		w.propose(w.nodes[0], addCommand('a', 1), time.Second, func(int, Reason) {})
		w.run(50 * time.Millisecond)
	},
	"follower": func(w *world, title func(string)) {
		w.run(50 * time.Millisecond)
		title("node 2, which follows, is given a command, and then a read")
		w.propose(w.nodes[2], addCommand('a', 1), time.Second, func(int, Reason) {})
		w.run(50 * time.Millisecond)
		w.read(w.nodes[2], time.Second, func(int, Reason) {})
		w.run(50 * time.Millisecond)
	},
	"quiet": func(w *world, title func(string)) {
		w.run(50 * time.Millisecond)
		title("nothing happens")
		w.run(24 * time.Hour)
		title("a day later node 1 is given a command")
		w.propose(w.nodes[1], addCommand('a', 1), time.Second, func(int, Reason) {})
		w.run(50 * time.Millisecond)
	},
	"leader-gone": func(w *world, title func(string)) {
		w.run(3 * time.Second)
		title("the group is quiet; the leader's process is killed, and the others' connections to it break")
		w.nodes[0].crash()
		w.nodes[0].member = false
		for _, x := range w.nodes[1:] {
			x.step(Presence{Peer: w.nodes[0].peer})
		}
		w.run(100 * time.Millisecond)
	},
	"removed": func(w *world, title func(string)) {
		w.run(50 * time.Millisecond)
		title("node 2 is taken out; it may go only when a majority of the others is sure of that")
		w.change(Remove, Member{ID: w.nodes[2].id}, func(Reason) {})
		w.run(2500 * time.Millisecond)
	},
}

func TestTranscripts(t *testing.T) {
	for name, run := range scenarios {
		var out strings.Builder
		w := newWorldWith(1, 3, func(w *world) {
			w.still = true
			w.faults.delay, w.faults.disk = time.Millisecond, time.Millisecond
			if name == "found" {
				w.transcript = &out
			}
		})
		run(w, func(s string) {
			w.transcript = &out // what comes before the first title is in found.txt
			fmt.Fprintf(&out, "\n# %s\n", s)
		})
		if w.failure != nil {
			t.Fatal(name, w.failure)
		}
		golden.Check(t, filepath.Join("testdata", name+".txt"), []byte(out.String()))
	}
}
