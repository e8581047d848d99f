package quorum

import (
	"errors"

	"github.com/libp2p/go-libp2p/core/peer"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/shoal-os/shoal/dht/wire"
	"github.com/shoal-os/shoal/storage/quorum/pb"
	"github.com/shoal-os/shoal/storage/quorum/replica"
)

const (
	// parcelMax is the largest encoded parcel, packetMax the largest packet: it takes at least one parcel.
	parcelMax = 2*CommandMax + 64<<10
	packetMax = parcelMax + 64<<10
	// packetGoal is where a packet ends if there is more to send.
	packetGoal = 256 << 10
	// callMax bounds openings, calls and answers; an opening may carry the parcel of a snapshot.
	callMax = 64 << 10
)

// The refusals of calls. They are append-only.
const (
	refusedOther     uint32 = 1
	refusedNotLeader uint32 = 2
	refusedKind      uint32 = 3
	refusedExists    uint32 = 4
	refusedBusy      uint32 = 5
	refusedUnknown   uint32 = 6 // there is no such group here
	refusedDissolved uint32 = 7
)

// The denials of parcels.
const (
	deniedUnknown   uint32 = 1
	deniedDissolved uint32 = 2
)

var (
	errNotLeader = errors.New("the peer does not lead the group")
	errUnknown   = errors.New("the peer has no such group")
)

// refusalOf numbers an error for an answer, refusalError is the other way round.
func refusalOf(err error) *pb.Answer {
	a := &pb.Answer{Refusal: refusedOther, Text: err.Error()}
	for n, e := range refusals() {
		if errors.Is(err, e) {
			a.Refusal = n
		}
	}
	return a
}

func refusalError(a *pb.Answer) error {
	if a.GetRefusal() == 0 {
		return nil
	}
	if err := refusals()[a.GetRefusal()]; err != nil {
		return err
	}
	return wire.Errorf(wire.Refused, "%s", wire.CleanText(a.GetText()))
}

func refusals() map[uint32]error {
	return map[uint32]error{
		refusedNotLeader: errNotLeader, refusedKind: ErrKind, refusedExists: ErrExists, refusedBusy: ErrBusy,
		refusedUnknown: errUnknown, refusedDissolved: ErrDissolved,
	}
}

// toParcel puts a message into the schema.
func toParcel(id GroupID, m *replica.Message) (*pb.Parcel, error) {
	p := &pb.Parcel{Group: id[:], From: m.From, To: m.To}
	switch {
	case m.Raft != nil:
		raw, err := proto.Marshal(m.Raft)
		if err != nil {
			return nil, err
		}
		p.Raft = raw
	case m.Quiet != nil:
		p.Quiet = &pb.Quiet{Term: m.Quiet.Term, Index: m.Quiet.Index}
	case m.Wake != nil:
		p.Wake = true
	case m.Ask != nil:
		p.Ask = &pb.Ask{Term: m.Ask.Term, Session: m.Ask.Session, Seq: m.Ask.Seq, Entry: m.Ask.Entry}
	case m.Told != nil:
		p.Told = &pb.Told{Term: m.Told.Term, Session: m.Told.Session, Seq: m.Told.Seq}
	case m.Gone != nil:
		p.Gone = true
	}
	return p, nil
}

// fromParcel reads a message; nothing in it is believed yet. It is false for one that says nothing that this build knows.
func fromParcel(p *pb.Parcel) (replica.Message, bool) {
	m := replica.Message{From: p.GetFrom(), To: p.GetTo()}
	switch {
	case len(p.GetRaft()) > 0:
		m.Raft = new(raftpb.Message)
		if (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(p.GetRaft(), m.Raft) != nil {
			return m, false
		}
	case p.GetQuiet() != nil:
		m.Quiet = &replica.Quiet{Term: p.GetQuiet().GetTerm(), Index: p.GetQuiet().GetIndex()}
	case p.GetWake():
		m.Wake = &replica.Wake{}
	case p.GetAsk() != nil:
		a := p.GetAsk()
		m.Ask = &replica.Ask{Term: a.GetTerm(), Session: a.GetSession(), Seq: a.GetSeq(), Entry: a.GetEntry()}
	case p.GetTold() != nil:
		t := p.GetTold()
		m.Told = &replica.Told{Term: t.GetTerm(), Session: t.GetSession(), Seq: t.GetSeq()}
	case p.GetGone():
		m.Gone = &replica.Gone{}
	default:
		return m, false
	}
	return m, true
}

// groupOf reads a group's id.
func groupOf(raw []byte) (id GroupID, ok bool) {
	if len(raw) != len(id) {
		return id, false
	}
	copy(id[:], raw)
	return id, true
}

// peerOf reads a peer's id.
func peerOf(raw []byte) (peer.ID, error) {
	id, err := peer.IDFromBytes(raw)
	if err != nil {
		return "", wire.Errorf(wire.Malformed, "no peer id")
	}
	return id, nil
}
