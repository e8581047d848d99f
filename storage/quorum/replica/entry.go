package replica

import (
	"encoding/binary"

	"github.com/libp2p/go-libp2p/core/peer"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// entryKind is the first byte of an entry's data. Raft's own entries have no data.
type entryKind byte

const (
	entryCommands entryKind = 1 // and then each command: its id, its length, its bytes
	entryDissolve entryKind = 2 // and then the id of the wish
)

// appendCommand adds a command to the data of an entry.
func appendCommand(buf []byte, id uint64, data []byte) []byte {
	if len(buf) == 0 {
		buf = append(buf, byte(entryCommands))
	}
	buf = binary.BigEndian.AppendUint64(buf, id)
	return appendBytes(buf, data)
}

func dissolveData(id uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{byte(entryDissolve)}, id)
}

// parsed is what an entry says.
type parsed struct {
	commands []Command // with their ids and data
	dissolve bool
	id       uint64 // of the wish to dissolve
}

// parseEntry reads the data of a normal entry. What cannot be read says nothing, on all replicas alike.
func parseEntry(data []byte) (p parsed, ok bool) {
	if len(data) == 0 {
		return p, true
	}
	d := &decoder{data: data[1:]}
	switch entryKind(data[0]) {
	case entryCommands:
		for d.err == nil && len(d.data) > 0 {
			id := d.uint64()
			p.commands = append(p.commands, Command{ID: id, Data: d.bytes(CommandMax)})
		}
	case entryDissolve:
		p.dissolve, p.id = true, d.uint64()
	default:
		d.fail()
	}
	if d.end() != nil {
		return parsed{}, false
	}
	return p, true
}

// Op is a change of the members.
type Op uint8

// The changes. A member gets its vote in two steps, so that a newcomer that has nothing yet holds nobody up.
const (
	AddLearner Op = 1
	Promote    Op = 2
	Remove     Op = 3
)

// confChange is a change as Raft wants it; the peer and the wish's id are its context.
func confChange(id uint64, op Op, m Member) *raftpb.ConfChange {
	t := raftpb.ConfChangeRemoveNode
	switch op {
	case AddLearner:
		t = raftpb.ConfChangeAddLearnerNode
	case Promote:
		t = raftpb.ConfChangeAddNode
	}
	ctx := append(binary.BigEndian.AppendUint64(nil, id), m.Peer...)
	return &raftpb.ConfChange{Type: t.Enum(), NodeId: &m.ID, Context: ctx}
}

// parseConfChange is the other way round.
func parseConfChange(data []byte) (id uint64, op Op, m Member, ok bool) {
	var cc raftpb.ConfChange
	if proto.Unmarshal(data, &cc) != nil || len(cc.GetContext()) < 8 || len(cc.GetContext()) > 8+peerMax {
		return 0, 0, m, false
	}
	switch cc.GetType() {
	case raftpb.ConfChangeAddLearnerNode:
		op = AddLearner
	case raftpb.ConfChangeAddNode:
		op = Promote
	case raftpb.ConfChangeRemoveNode:
		op = Remove
	default:
		return 0, 0, m, false
	}
	ctx := cc.GetContext()
	return binary.BigEndian.Uint64(ctx), op, Member{ID: cc.GetNodeId(), Peer: peer.ID(ctx[8:])}, true
}
