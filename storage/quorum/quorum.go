// Package quorum owns agreements: small groups of peers, of 1, 3 or 5 voters each, that replicate one log with Raft and apply
// it to a state machine. It is the shell of package replica, which decides, and of package wal, in which all groups of a peer
// share one log on disk; it moves messages over /shoal/quorum/1, one stream per pair of peers and direction for all groups.
//
// What was acknowledged is on the disks of a majority and survives what a majority survives. A group needs a majority of its
// voters to go on; without one it waits, and says so. A group in which nothing happens sends nothing and costs no processor.
// The package refuses to know what is agreed on, and who should be a voter: Choose only proposes.
package quorum

import (
	"context"
	"encoding/hex"
	"errors"
	"log/slog"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/shoal-os/shoal/storage/folder"
	"github.com/shoal-os/shoal/storage/quorum/replica"
)

// Protocol is the id of the streams between members.
const Protocol protocol.ID = "/shoal/quorum/1"

const (
	// CommandMax is the largest command, in bytes.
	CommandMax = replica.CommandMax
	// SnapshotMax is the largest snapshot of a machine, in bytes.
	SnapshotMax = 64 << 20
	// VotersMax is the most voters that a group may have, and KindMax the longest name of a kind, in bytes.
	VotersMax = replica.VotersMax
	KindMax   = 32
	// GroupsMax is how many groups a peer takes part in.
	GroupsMax = 8192
)

// The errors that callers tell apart. All that a Group returns is one of these, or the context's error beside one of these.
var (
	// ErrNoQuorum: no majority of the voters could be reached in time. What was asked has not happened and will not.
	ErrNoQuorum = errors.New("no majority of the group's voters can be reached")
	// ErrMaybe: what was asked may have happened, or may yet; it will happen at most once.
	ErrMaybe = errors.New("it is not known whether this happened")
	// ErrNotVoter: this peer has no replica of the group, or one that has no vote (yet, or any more).
	ErrNotVoter = errors.New("this peer is no voter of the group")
	// ErrDissolved: the group's owner ended it.
	ErrDissolved = errors.New("the group was dissolved")
	// ErrExists: there is, or was, a group of this id here.
	ErrExists = errors.New("there is a group of this id already")
	// ErrKind: nobody registered machines of this kind.
	ErrKind = errors.New("no machine is registered for this kind of group")
	// ErrTooLarge: a command or a snapshot passes its bound.
	ErrTooLarge = errors.New("it is larger than a group takes")
	// ErrBusy: too much waits already, or another change of the members is under way. Try again later.
	ErrBusy = errors.New("the group is busy")
	// ErrClosed: the engine was closed. What was asked may have happened.
	ErrClosed = errors.New("the quorum engine is closed")
)

// GroupID names a group; whoever creates it chooses one that no other group has, such as a job's hash.
type GroupID [32]byte

// String is the id in hex.
func (id GroupID) String() string { return hex.EncodeToString(id[:]) }

// Entry is one command that the group agreed on.
type Entry struct {
	// Index is the command's place among all commands of the group: 1, 2, 3 … It is the same on all replicas.
	Index uint64
	// Term is the Raft term in which it was proposed. It never falls, and each term has one leader.
	Term uint64
	// Data is the command; it is never nil, and must not be changed.
	Data []byte
}

// Machine is what a group agrees about. It must be deterministic: the same entries in the same order give the same state and
// the same results on every replica, whatever the clock, the machine or chance say. Its methods are never called at the same
// time; to read it use Group.View.
type Machine interface {
	// Apply takes the next entry and returns what Propose returns for it. An entry that makes no sense must be ignored, in
	// the same way on all replicas. The result is not kept.
	Apply(Entry) (result []byte)
	// Snapshot returns all of the state, at most SnapshotMax bytes, which must not be changed afterwards.
	Snapshot() ([]byte, error)
	// Restore replaces all of the state by that of a snapshot, which it must not keep. After an error the replica stops.
	Restore(snapshot []byte) error
}

// Streams carries the protocol between members. Its streams must come from, and go to, members only. dht/pool fits.
type Streams interface {
	// Handle registers the one handler of a protocol.
	Handle(protocol.ID, network.StreamHandler)
	// NewStream opens a stream to a member. With network.WithNoDial it fails when there is no connection.
	NewStream(context.Context, peer.ID, protocol.ID) (network.Stream, error)
}

// Presence says which members can be reached. It is a hint that makes things faster: nothing depends on it being right.
type Presence interface {
	// Present reports whether a member is connected and not known to be away.
	Present(peer.ID) bool
	// OnPresence has f called, on any goroutine, when that changes, until stop is called. f does not block.
	OnPresence(f func(id peer.ID, present bool)) (stop func())
}

// Config is what an engine needs. Self, Streams, Presence and one of Dir and FS must be set.
type Config struct {
	// Dir is the folder of its files, its alone.
	Dir string
	// FS, when set, is used instead of the file system's folder Dir.
	FS folder.FS
	// Self is this peer.
	Self     peer.ID
	Streams  Streams
	Presence Presence
	// Accept, when set, is asked before this peer becomes a member of another peer's group; an error refuses it.
	Accept func(from peer.ID, id GroupID, kind string) error
	// Clock counts the time since some moment, sleep included; nil: the process's own clock, which does not. Only how soon
	// things happen depends on it.
	Clock func() time.Duration
	// Timing holds the waits of Raft; its zero value gives those of production.
	Timing replica.Timing
	// Log is told of what goes wrong; nil: slog.Default.
	Log *slog.Logger
}

// Member is one member of a group.
type Member struct {
	Peer    peer.ID
	Learner bool // it follows the log and has no vote
	Self    bool
	Present bool // a message of it came, or it could be sent one, since it was last lost
	// Lost: its peer says that it has no such replica, as after the loss of its disk. It will never vote again and should
	// be removed. Known to the leader only.
	Lost bool
	// Match is up to which entry of Raft's log it has all. Known to the leader only.
	Match uint64
}

// Status describes a group as this peer sees it.
type Status struct {
	ID     GroupID
	Kind   string
	Leader peer.ID // "" when there is none or it is not known
	Term   uint64  // Raft's term; it only grows
	// Leading: this peer is the leader and its machine has applied all that earlier leaders acknowledged. A leader that was cut
	// off, or has just slept, can take a few seconds to notice that there is another one, of a later term; what it proposes
	// in that time is not acknowledged.
	Leading bool
	Voter   bool // this peer has a vote
	// Quiet: nothing happens in the group, and nothing is sent for it.
	Quiet     bool
	Dissolved bool // or this peer was removed from it: the group is of no more use here
	Members   []Member
	Commands  uint64 // applied here
	Index     uint64 // of Raft's log, applied here
	LogBytes  int    // of entries in memory and on disk, since the last snapshot
	// Err says why this replica stopped, if it did.
	Err error
}
