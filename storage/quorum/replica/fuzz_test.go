package replica

import (
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// FuzzReceive lets a member of the group say anything to a replica, as a follower and as a leader. Nothing that it says makes
// it panic.
func FuzzReceive(f *testing.F) {
	seed := func(m *raftpb.Message) []byte {
		raw, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		return raw
	}
	n := func(v uint64) *uint64 { return &v }
	for t := range raftpb.MessageType_name {
		f.Add(seed(&raftpb.Message{Type: raftpb.MessageType(t).Enum(), Term: n(3), Index: n(1), LogTerm: n(1), Commit: n(1)}), true)
	}
	f.Add(seed(&raftpb.Message{
		Type: raftpb.MsgApp.Enum(), Term: n(9), Index: n(2), LogTerm: n(2), Commit: n(4),
		Entries: []*raftpb.Entry{{Term: n(9), Index: n(3), Data: []byte{1, 0, 0, 0, 0, 0, 0, 0, 9, 1, 'x'}}, {Term: n(9), Index: n(4)}},
	}), false)
	f.Add(seed(&raftpb.Message{Type: raftpb.MsgSnap.Enum(), Term: n(9), Snapshot: encodeSnapshot(Snapshot{Index: 50, Term: 8, Book: &Book{}})}), false)
	f.Add(seed(&raftpb.Message{Type: raftpb.MsgHeartbeatResp.Enum(), Term: n(2), Context: []byte{1, 0, 0, 0, 0, 0, 0, 0}}), true)
	f.Fuzz(func(t *testing.T, raw []byte, leader bool) {
		w := newWorld(1, 3)
		w.until(time.Second, func() bool { return w.leader() != nil })
		w.run(100 * time.Millisecond)
		x, liar := w.nodes[0], w.nodes[1]
		if !leader {
			x = w.nodes[2]
		}
		m := new(raftpb.Message)
		if proto.Unmarshal(raw, m) != nil {
			return
		}
		m.From, m.To = &liar.id, &x.id
		out := x.r.Step(x.boot(), Receive{liar.peer, Message{From: liar.id, To: x.id, Raft: m}})
		x.r.Step(x.boot()+time.Minute, Saved{1 << 40}, Applied{1 << 40}, Read{1}, Propose{ID: 2, Data: []byte("x")})
		if len(out.Send) > 10 {
			t.Errorf("%d messages", len(out.Send))
		}
	})
}

// FuzzLoad reads anything as records of a replica, and makes a replica of them.
func FuzzLoad(f *testing.F) {
	st := Founded("kind", 7, 7, []Member{{ID: 7, Peer: "a"}, {ID: 9, Peer: "b"}})
	f.Add(st.Record(), moreRecord(Hard{2, 7, 1}, []*raftpb.Entry{newEntry(raftpb.EntryNormal, 2, 2, []byte("\x02abcdefgh"))}))
	f.Add(Offered("kind", 7).Record(), []byte{2})
	f.Fuzz(func(t *testing.T, first, second []byte) {
		st := new(State)
		if st.Load(first) != nil || st.Load(second) != nil {
			return
		}
		r, err := New(Config{Seed: 1}, st, 0)
		if err != nil {
			return
		}
		r.Step(time.Second)
		again := new(State)
		if err := again.Load(r.Record()); err != nil {
			t.Errorf("what it would write cannot be read: %v", err)
		}
	})
}

// FuzzEntry reads anything as an entry.
func FuzzEntry(f *testing.F) {
	f.Add(appendCommand(appendCommand(nil, 1, []byte("one")), 2, nil))
	f.Add(dissolveData(7))
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, ok := parseEntry(raw)
		if !ok && (len(p.commands) > 0 || p.dissolve) {
			t.Error("what cannot be read says something")
		}
		var again []byte
		for _, c := range p.commands {
			again = appendCommand(again, c.ID, c.Data)
		}
		if q, _ := parseEntry(again); len(q.commands) != len(p.commands) {
			t.Errorf("%d commands, then %d", len(p.commands), len(q.commands))
		}
	})
}
