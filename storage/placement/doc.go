// Package placement decides which peers should hold which piece of the pool's files, and which moves mend it when they do
// not.
//
// A piece is the unit of placement: a whole file, or one gibibyte of it. A member offers space; its weight is that space
// times how reliably it is there. Rank orders members for a piece by weighted rendezvous hashing, Choose picks those that
// should hold it, spread over owners, then sites, then devices, one of them an anchor if there is one. Both are the same
// on every peer whatever the order of the members, and on every architecture: all arithmetic is on integers.
//
// A Planner is one peer's own judgement of what it should fetch, announce and let go, from what it knows of members,
// pieces and who holds what. Every peer runs the same one and decides for itself alone; there is no coordinator. What
// keeps two from doing the same thing is that all of them compute the same order, and that whoever begins says so: a
// taking is its lease.
//
// The package is pure: Step(now, event) changes the planner and says what follows. It has no clock, disk, network,
// goroutine or randomness; storage/repair is its shell. It moves no bytes, deletes nothing, and knows no file names.
//
// # How a shell drives a Planner
//
// One goroutine (or one lock) owns it. After each event the shell does what Out says, in the order of its fields, and sets
// one timer: when now.Boot reaches Out.Wake it sends Tick. Boot time counts sleep and never goes back (a step back
// panics); wall time is only used to tell how long ago a member was last seen.
//
//  1. At start: Members (this peer among them), then Pieces with all live ones, then Holds{Reset: true} for this peer and,
//     from what was persisted, for every other. The first step counts as waking. A sleeping member of which no Holds ever came
//     (not even an empty one) counts as one that may have any piece, until it is absent.
//  2. Fill, once, when the directory is in step, if this peer has not yet taken its share since it joined; Out.Filled says
//     when it has, and the shell persists that. It never sends Fill again, unless this peer's offer has grown much.
//  3. Members whenever the list or anything in it but Free changed, or Presence when only the state of one did; Room when a
//     peer's free bytes change, this peer's too. Woke after sleep, and Members or Presence as soon as more is known.
//     Hearsay when another member says when it last saw the others (it sends what LastSeen returns, on connection and
//     hourly): without it a traveller who comes home would take everybody for absent who sleeps just then.
//  4. Holds for every inventory delta, also this peer's own (Changes of the piece store); Taking for every announcement.
//  5. Out.Fetch: get the piece from any of From (or from what Sources says later), Moving while bytes arrive, at the end
//     Taken (durable) or Failed. Out.Stop ends one early; no Taken or Failed is owed for it. Out.Announce goes to all online
//     members as it is, and Takings to one that has just connected. What the shell moves by itself (small pieces that a
//     writer sends inline) needs none of this; Nudge has the planner fetch a large one for a writer, at once and without
//     brakes.
//  6. Out.Trim: ask each of From for fresh proof. The asked peer's shell answers by Promise, never from the inventory.
//     With Need proofs in hand before Until delete the piece and send Holds{Removed} for this peer, else send Kept.
//
// Everything that an event holds belongs to the caller; Out is the caller's too.
package placement
