// Package market decides who runs what: it is the contract of DESIGN.md's "Tasks" as three pure state machines, with no
// clock, disk, network, goroutine or randomness of their own.
//
// A job has one quorum group, whose voters are its stewards; the leading one grants leases. A lease is the right to run a
// task until a time, named by a token that only grows.
//
//   - Ledger is what the group agrees on: the spec, which tasks are closed and with which result, and the failures that
//     count. It is the group's replicated state machine (storage/quorum's Machine).
//   - Steward is what the leading steward knows besides, and may forget: who offers slots, who holds which lease. One for
//     each job and each of its stewards.
//   - Worker is one peer's side of all jobs: what it bids for, runs, freezes, hands over and gives back.
//
// The package refuses to trust its own soft state: whatever Steward and Worker get wrong, forget or hear twice, the
// ledger's compare-and-set lets each task have one result.
//
// # Driving a Ledger
//
// It is the machine of the job's group, whose id is the job's: register a kind whose machines are
//
//	type machine struct{ *market.Ledger }
//	func (m machine) Apply(e quorum.Entry) []byte { return m.Ledger.Apply(e.Index, e.Term, e.Data) }
//
// Commands are cut by Batches and encoded by EncodeBatch, one entry for many; DecodeReplies reads what Propose returns. The
// first entry is the submission, with the signed spec, which whoever proposes it has verified (job.Decode); the job is
// submitted when the answer is Accepted, and not before. Anybody may propose a Cancel whom the shell lets. What NewLedger
// was given as applied is called within Apply, in the log's order: pass it to the Steward as a Result event. All methods that
// read may be called by anybody at any time.
//
// When Sealed names pages after an Apply, write them as blocks that stay for as long as the group lives, then call Stored.
// After Restore, and on start, do the same for Missing: what the block store has is Stored, the rest is to be fetched from
// another steward. ResultAt gives a result, or the names of the blocks of which one has it, for RecordIn. When Expired says so
// the leader dissolves the group.
//
// # Driving a Steward
//
// One goroutine owns it: it takes events from a bounded queue, gives Step all that have gathered with a reading of the
// boot-time clock (CLOCK_BOOTTIME, which counts sleep), and carries out what comes back in the order of StewardOut's fields. It
// keeps one timer, at Wake.
//
//   - Lead: quorum's Status says Leading, so the ledger has applied whatever was acknowledged before. Call Ledger.View,
//     and send Lead with the view, the status's term, and the group's voters. Results that overtake it are harmless. Before
//     the submission is applied there is no view: send Lead when it is.
//   - Follow: this peer leads no more, or another does; with that one's id if it is known, and the status's term.
//   - Joined, Reported, Left: a worker's stream opened, a message came on it, it ended. Each stream has a number of its own; a
//     worker's new stream takes the place of its old one, whose later events are ignored. A connection that breaks is
//     Left at once; a stream that is silent is not.
//   - Result: what the ledger applied, every entry, in order.
//   - Refused: Propose of these commands failed; with Never, if they cannot come to pass any more (ErrNoQuorum, not
//     ErrMaybe).
//   - Confirmed: the answer to StewardOut.Confirm. Note clock and term, call Group.Read, and if it succeeds and this peer still
//     leads that very term send them. At most one at a time is enough.
//
// Propose goes to Group.Propose, batch by batch; the steward does not wait for it, and many may be on their way. Orders are
// messages; if a worker's queue is full close its stream. Announce goes to gossip.
//
// # Driving a Worker
//
// One goroutine owns it, with one timer at Wake, on the same kind of clock, and again Step takes all that has gathered. After
// a wake from sleep, Step it before anything else: it freezes what may not run. Carry out WorkerOut in the order of its fields.
//
//   - Announced: an announcement by gossip, from a member, or of a job that was submitted on this very peer.
//   - Looked: the answer to Looks. The shell fetches the block Ad.Job.CID() from a steward, reads it with job.Decode, holds it
//     against the Ad (submitter, needs, priority, exclusive), compiles the program, counts the inputs' local bytes; or says in
//     words why this peer cannot run it.
//   - Connected, Ordered, Hungup: the stream that Dials asked for opened, a message came, it ended or could not be opened. Number
//     them as Dial.Stream says; the number that the steward's side uses is its own.
//   - Ended: an attempt that Starts began has ended, and its outputs are blocks on two peers; with a result, good or, with
//     Failed, one that counts against the task; or with neither, and Why, if the task could not help it.
//   - Changed: what this peer lends now, by Allow and what its owner set. Mine: its owner takes it back, or gives it again.
//     Sleeping: the lid closes; with On false it is open again. Stopping: the peer ends; what it says then is the last.
//
// Until tells how long each attempt may run. A runner's child that keeps the latest such time itself and stops there stays
// within its lease even when this process is stopped: give it the time with the task, and again with each Until.
//
// A report has at most CommitsMax results of job.ResultMax bytes, so a frame of a mebibyte holds any; an order is smaller.
// Decoders hold the bounds that are listed with the messages.
package market
