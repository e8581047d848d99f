package placement

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/storage/chunk"
)

// Config is what a planner begins with. The zero value of each field but Self is a default; where it says so, a negative
// value turns the rule off. All defaults of less than Patience shrink with it, so that tests may set Patience to seconds.
type Config struct {
	Self peer.ID
	// Patience is how long a member may be away before its copies no longer count. 72 h.
	Patience time.Duration
	// Urgent is how long a piece waits for a second reachable copy when only one is. 15 min, at most Patience/4. A
	// shortfall that no absence explains (a writer that did not finish) waits as long. Negative: no second copy is made.
	Urgent time.Duration
	// FreezeShare of the pool that vanishes within FreezeWindow stops all repair until the window has passed. 1/4 within
	// 1 h (at most Patience/2). One member alone never does. Negative: off.
	FreezeShare  float64
	FreezeWindow time.Duration
	// SeeShare is how much of the pool must be online, this peer included, for repair to go on. 1/2. Negative: off.
	SeeShare float64
	// WakeGrace is how long nothing is begun after the start or Woke. 10 min, at most Patience/4. Negative: off.
	WakeGrace time.Duration
	// Lease is for how long a taking holds unless renewed, and by how much each further rank waits longer. 10 min, at most
	// Patience/4 but not less than 5 s.
	Lease time.Duration
	// Jitter is the most by which the mending of an absence is put off, by a hash of the piece, so that not all begins at
	// once. 30 min, at most Patience/4. Negative: none.
	Jitter time.Duration
	// Large and Small bound the fetches under way: of pieces of more than 1 MiB, and of others. 2 and 64.
	Large, Small int
	// Reserve is how many bytes this peer wants free: with less, it lets surplus copies go. 0: a twentieth of its Space.
	// The greatest value has it let every surplus copy go.
	Reserve uint64

	settle time.Duration // how long a shortfall that no absence explains waits
}

// Piece is one live piece of the pool's files.
type Piece struct {
	ID     chunk.CID
	Size   int64 // bytes
	Copies int   // wanted, 1 to 255
	// Pinned: this peer is to hold it in any case.
	Pinned bool
}

// Event is something that happened.
type Event interface{ isEvent() }

// Members is the whole list of members, this peer included. Who is no longer in it holds nothing.
type Members struct{ List []Peer }

// Presence says that a member's state changed, and when it was last heard of (as in Peer). It spares sending all of Members.
type Presence struct {
	Peer  peer.ID
	State State
	Seen  time.Time
}

// Room says how many bytes a member has free now.
type Room struct {
	Peer peer.ID
	Free uint64
}

// Hearsay brings when another member last saw some members; the latest counts. What lies in the future counts as now.
type Hearsay struct{ Seen []LastSeen }

// LastSeen is when a member was last heard of, by the wall clock.
type LastSeen struct {
	Peer peer.ID
	At   time.Time
}

// Pieces changes which pieces are live. Changed ones are new or differ in Copies or Pinned.
type Pieces struct {
	Changed []Piece
	Removed []chunk.CID
}

// Holds changes what is known of what a member holds. Pieces not live (yet) are remembered too.
type Holds struct {
	Peer           peer.ID
	Reset          bool // it holds nothing but Added
	Added, Removed []chunk.CID
}

// Taking is a member's word that it is fetching a piece and should be left to it for so long from now; 0 or less: that it
// no longer is. Counting from the arrival makes clocks that differ harmless.
type Taking struct {
	Peer  peer.ID
	Piece chunk.CID
	For   time.Duration
}

// Nudge is a writer's wish that this peer hold a piece: it is fetched at once, if there is room. The piece need not be live
// yet; Size must be right.
type Nudge struct {
	Piece chunk.CID
	Size  int64
	From  peer.ID
}

// Moving says that bytes of a piece being fetched arrived.
type Moving struct{ Piece chunk.CID }

// Taken says that a fetch ended well: the piece is here, durably.
type Taken struct{ Piece chunk.CID }

// Failed says that a fetch ended otherwise. It is tried again later, the sooner the fewer times it failed.
type Failed struct{ Piece chunk.CID }

// Kept says that a Trim was not carried out.
type Kept struct{ Piece chunk.CID }

// Need says that this peer must have so many bytes free now, as for what is being put: surplus copies make room.
type Need struct{ Bytes uint64 }

// Fill has this peer take its share of the pieces that were there before it joined.
type Fill struct{}

// Woke says that this machine slept until now.
type Woke struct{}

// Tick lets time pass.
type Tick struct{}

func (Members) isEvent()  {}
func (Presence) isEvent() {}
func (Room) isEvent()     {}
func (Hearsay) isEvent()  {}
func (Pieces) isEvent()   {}
func (Holds) isEvent()    {}
func (Taking) isEvent()   {}
func (Nudge) isEvent()    {}
func (Moving) isEvent()   {}
func (Taken) isEvent()    {}
func (Failed) isEvent()   {}
func (Kept) isEvent()     {}
func (Need) isEvent()     {}
func (Fill) isEvent()     {}
func (Woke) isEvent()     {}
func (Tick) isEvent()     {}

// Why says what a fetch is for.
type Why uint8

// The reasons for a fetch, the most pressing first.
const (
	ForWriter  Why = iota // a writer asked
	ForPin                // pinned here, or this peer's own copy was found damaged
	ForUrgency            // only one copy is reachable
	ForRepair             // copies are missing
	ForShare              // this peer is new and takes its share
)

// String names the reason in a word or two.
func (w Why) String() string {
	return [...]string{"writer", "pin", "urgent", "repair", "share"}[min(w, ForShare)]
}

// Fetch is a piece to be fetched, and the members that have it and are online, the best first.
type Fetch struct {
	Piece chunk.CID
	Size  int64
	From  []peer.ID
	Why   Why
}

// Announce is a taking of this peer, to be told to all members that are online. For 0: it is given up.
type Announce struct {
	Piece chunk.CID
	For   time.Duration
}

// Trim is a surplus copy to be deleted once Need of the members From have promised anew that they keep theirs. After Until,
// on the boot clock, the promises are void.
type Trim struct {
	Piece chunk.CID
	Size  int64
	Need  int
	From  []peer.ID
	Until time.Duration
}

// Brake is why nothing is mended at the moment.
type Brake uint8

// The brakes.
const (
	Free      Brake = iota // none
	JustWoke               // this machine started or woke a moment ago
	Vanished               // a great part of the pool went away within an hour
	FewOnline              // too little of the pool is seen
)

// String says the brake in a few words for people.
func (b Brake) String() string {
	return [...]string{"", "this machine has just started or woken", "a great part of the pool vanished at once",
		"less than half of the pool is online"}[min(b, FewOnline)]
}

// Out is what follows from a step, in the order in which the shell acts on it.
type Out struct {
	Stop     []chunk.CID // fetches to end
	Announce []Announce  // before the fetches that it is about
	Fetch    []Fetch
	Trim     []Trim
	// Filled: Fill is done.
	Filled bool
	// Brake says whether repair stands still, and why.
	Brake Brake
	// Wake is the Boot time at which Step wants a Tick if nothing else happens before; 0: none.
	Wake time.Duration
}
