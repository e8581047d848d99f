package replica

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Event is something that happened; see the types that implement it.
type Event interface{ event() }

type (
	// Receive is a message of another replica. Its sender was authenticated: Message.From is a replica of From.
	Receive struct {
		From    peer.ID
		Message Message
	}
	// Saved says that the save of this number and all before it are durable.
	Saved struct{ Seq uint64 }
	// Applied says that the machine has applied the batch of this number and all before it.
	Applied struct{ Seq uint64 }
	// Snapshotted ends what Out.Snapshot asked for: there is a durable snapshot of the machine, as it was after the batch that is
	// described. OK is false when there is not, and will not be.
	Snapshotted struct {
		OK          bool
		Index, Term uint64
		Book        *Book
		Size        int
	}
	// SnapshotSent ends the sending of a message with a snapshot to a replica.
	SnapshotSent struct {
		To uint64
		OK bool
	}
	// Propose wants a command to be applied. ID is this peer's name for it and must be unique among all replicas and times.
	Propose struct {
		ID   uint64
		Data []byte
	}
	// Dissolve wants the group to end; otherwise it is like Propose.
	Dissolve struct{ ID uint64 }
	// Cancel gives up a Propose, Dissolve, Read or Change. Done tells how far it had come.
	Cancel struct{ ID uint64 }
	// Read is done when the machine has applied all that was acknowledged before.
	Read struct{ ID uint64 }
	// Change wants the members to change. Only the leader can, one at a time, and not remove itself: else it is done at once with
	// NotLeader, Busy or Never.
	Change struct {
		ID     uint64
		Op     Op
		Member Member
	}
	// Transfer wants the leader, if this is it, to hand over to another replica.
	Transfer struct{ To uint64 }
	// Campaign stands for election at once: whoever founds a group does. Votes are the other replicas that are known to exist
	// as Founded by this one, and so to have voted for it in the first term that it stands in; in any other term they say nothing.
	Campaign struct{ Votes []uint64 }
	// Presence says that a peer can be reached, or no longer.
	Presence struct {
		Peer    peer.ID
		Present bool
	}
	// Lost says that the peer of a replica denies having it.
	Lost struct{ ID uint64 }
	// Woke says that the machine slept for a while. A leader does not believe that it still is one until a majority says so.
	Woke struct{}
	// Checkpoint asks for a save that makes all saves before it needless.
	Checkpoint struct{}
)

func (Receive) event()      {}
func (Saved) event()        {}
func (Applied) event()      {}
func (Snapshotted) event()  {}
func (SnapshotSent) event() {}
func (Propose) event()      {}
func (Dissolve) event()     {}
func (Cancel) event()       {}
func (Read) event()         {}
func (Change) event()       {}
func (Transfer) event()     {}
func (Campaign) event()     {}
func (Presence) event()     {}
func (Lost) event()         {}
func (Woke) event()         {}
func (Checkpoint) event()   {}

// Out is what follows from a step. What must not happen before a save is durable is not in it until Saved says so.
type Out struct {
	// Saves are appended to the log of this peer, in order.
	Saves []Save
	// Send are messages that may go now. They may be lost, doubled and reordered.
	Send []Message
	// Apply are batches for the machine, in order. Each is answered by Applied.
	Apply []Batch
	// Snapshot asks for a snapshot of the machine, once all batches up to here are applied. It is answered by Snapshotted.
	Snapshot bool
	// Done lists the requests that ended. A proposal that succeeded is not here: it is in the batch that applies it.
	Done []Done
	// Changed says that Status tells something new of leader, term, members or end.
	Changed bool
	// Wake is when the next step is due if no event comes before; it is in the past for at once, and there is none when Idle.
	Wake time.Duration
	Idle bool
}

// Save is one record for the log. Its number grows by one with each.
type Save struct {
	Seq    uint64
	Sync   bool // it must be durable before Saved is said of it; others need no Saved
	Whole  bool // it makes the records before it needless
	Record []byte
}

// Batch is what the machine gets next.
type Batch struct {
	Seq uint64
	// Restore: the machine becomes what the snapshot of this index holds, or new when Fresh, instead of applying commands.
	Restore, Fresh bool
	Commands       []Command
	// What is true after it: the place in Raft's log, and the book.
	Index, Term uint64
	Book        *Book
}

// Command is one that was agreed on.
type Command struct {
	ID    uint64 // as it was proposed, here or elsewhere
	Index uint64 // among the group's commands
	Term  uint64
	Data  []byte
}

// Reason is how a request ended.
type Reason uint8

// The reasons.
const (
	OK        Reason = iota
	Never            // it has not happened and will not
	Maybe            // it may have happened or may happen yet, at most once
	Busy             // never; another change is under way
	NotLeader        // never; ask the leader
	Ended            // never; the replica is of no more use
)

// Done is the end of a request. When a replica stops there may be two of one; the first counts.
type Done struct {
	ID     uint64
	Reason Reason
}
