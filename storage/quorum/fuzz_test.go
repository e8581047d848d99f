package quorum

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/shoal-os/shoal/dht/wire"
	"github.com/shoal-os/shoal/storage/quorum/pb"
)

// tape is a stream whose other side said something once and listens to nothing.
type tape struct {
	fakeStream
	in   *bytes.Reader
	said bytes.Buffer
}

func (s *tape) Read(p []byte) (int, error)                   { return s.in.Read(p) }
func (s *tape) Write(p []byte) (int, error)                  { return s.said.Write(p) }
func (s *tape) Close() error                                 { return nil }
func (s *tape) Reset() error                                 { return nil }
func (s *tape) ResetWithError(network.StreamErrorCode) error { return nil }
func (s *tape) SetDeadline(time.Time) error                  { return nil }
func (s *tape) SetReadDeadline(time.Time) error              { return nil }
func (s *tape) SetWriteDeadline(time.Time) error             { return nil }

func say(messages ...proto.Message) []byte {
	var buf bytes.Buffer
	for _, m := range messages {
		if err := wire.WriteMsg(&buf, m, packetMax); err != nil {
			panic(err)
		}
	}
	return buf.Bytes()
}

// FuzzServe lets another member say anything on a stream. The group of those who do not talk goes on.
func FuzzServe(f *testing.F) {
	id := GroupID{1}
	raft, _ := proto.Marshal(&raftpb.Message{Type: raftpb.MsgHeartbeat.Enum()})
	parcel := &pb.Parcel{Group: id[:], From: 3, To: 4, Raft: raft}
	f.Add(say(&pb.Opening{Packets: true}, &pb.Packet{Parcels: []*pb.Parcel{parcel}}))
	f.Add(say(&pb.Opening{Packets: true}, &pb.Packet{Parcels: []*pb.Parcel{{Group: id[:], From: 3, To: 4, Denial: 2}}}))
	f.Add(say(&pb.Opening{Call: &pb.Call{Group: id[:], Offer: &pb.Offer{Kind: "table", Replica: 7}}}))
	f.Add(say(&pb.Opening{Call: &pb.Call{Group: make([]byte, 32), Offer: &pb.Offer{Kind: "table", Replica: 7}}}))
	f.Add(say(&pb.Opening{Call: &pb.Call{Group: id[:], Add: []byte("someone")}}))
	f.Add(append(say(&pb.Opening{Snapshot: &pb.Snapshot{Parcel: parcel, Size: 5}}), "hello"...))
	f.Add([]byte{0xff, 0xff, 0xff, 0x7f})
	f.Fuzz(func(t *testing.T, data []byte) {
		synctest.Test(t, func(t *testing.T) {
			p := newFakePool(t, 1, 2)
			defer p.close()
			g, err := p.nodes[0].Create(within(t, time.Second), id, "table", p.ids(0))
			if err != nil {
				t.Fatal(err)
			}
			s := &tape{in: bytes.NewReader(data)}
			s.self, s.other = p.nodes[0], p.nodes[1]
			p.nodes[0].serve(s)
			synctest.Wait()
			if _, err := g.Propose(within(t, time.Second), add("n", 1)); err != nil {
				t.Error(err)
			}
			if n := len(p.nodes[0].Groups()); n > 2 {
				t.Errorf("%d groups", n)
			}
		})
	})
}

// FuzzParcel reads anything as a parcel, and writes what it read.
func FuzzParcel(f *testing.F) {
	raw, _ := proto.Marshal(&pb.Parcel{From: 1, To: 2, Ask: &pb.Ask{Term: 1, Seq: 2, Entry: []byte("x")}})
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		var p pb.Parcel
		if proto.Unmarshal(raw, &p) != nil {
			return
		}
		m, ok := fromParcel(&p)
		if !ok {
			return
		}
		again, err := toParcel(GroupID{1}, &m)
		if err != nil {
			return // text that is not UTF-8 and the like
		}
		if back, ok := fromParcel(again); !ok || back.From != m.From || (back.Raft == nil) != (m.Raft == nil) {
			t.Errorf("%+v, then %+v", m, back)
		}
	})
}

// FuzzSnapshotFile reads anything as a snapshot.
func FuzzSnapshotFile(f *testing.F) {
	f.Add([]byte(snapshotMagic + "\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00x"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if data, err := parseSnapshot(raw); err == nil && !bytes.HasSuffix(raw, data) {
			t.Error("it made something up")
		}
	})
}
