package roster

import "fmt"

// Reason numbers why a peer was refused. The numbers go over the wire and are append-only.
type Reason uint32

// The reasons about membership, and those about joining.
const (
	OK       Reason = 0 // not refused
	Stranger Reason = 1 // no certificate of the peer is known
	Evicted  Reason = 2 // its key was revoked
	Lapsed   Reason = 3 // its certificate ran out
	Early    Reason = 4 // its certificate begins in the future: a clock is wrong
	Forged   Reason = 5 // its certificate is signed by one who had no right to
	Left     Reason = 6 // it left by its own will
	NotRole  Reason = 7 // its role does not allow this

	TicketUnknown Reason = 8  // no such invitation was made here, or it was withdrawn
	TicketExpired Reason = 9  // the invitation ran out
	TicketUsed    Reason = 10 // the invitation was used as often as it may be
	TicketForeign Reason = 11 // the ticket is for another pool
	BadProof      Reason = 12 // the other side does not know the ticket's secret, or the messages were replayed
	Declined      Reason = 13 // a person said no
	NotAdmin      Reason = 14 // the peer asked is no admin
	Stopping      Reason = 15 // the peer asked is leaving its pool or shutting down
	// ReasonMax is the greatest reason that this build knows.
	ReasonMax = Stopping
)

var reasonTexts = [...]string{
	OK:            "welcome",
	Stranger:      "not a member of the pool",
	Evicted:       "evicted from the pool",
	Lapsed:        "the membership certificate ran out",
	Early:         "the membership certificate is not valid yet: the clock of one of the two is wrong",
	Forged:        "the membership certificate is not signed by an admin of the pool",
	Left:          "left the pool",
	NotRole:       "the member's role does not allow this",
	TicketUnknown: "there is no such invitation any more",
	TicketExpired: "the invitation ran out",
	TicketUsed:    "the invitation was used already",
	TicketForeign: "the ticket is for another pool than this peer's",
	BadProof:      "the proof of the ticket's secret is wrong",
	Declined:      "the other side said no",
	NotAdmin:      "only an admin of the pool can do this",
	Stopping:      "the peer is shutting down or changing its pool",
}

// String says the reason in a few words for people.
func (r Reason) String() string {
	if int(r) < len(reasonTexts) {
		return reasonTexts[r]
	}
	return fmt.Sprintf("refused for reason %d", uint32(r))
}

// Hint says what the refused one can do about it, or "".
func (r Reason) Hint() string {
	switch r {
	case Stranger, Lapsed, Left, TicketUnknown, TicketExpired, TicketUsed:
		return "ask an admin of the pool for a new invitation, and join with it"
	case Early:
		return "set the clocks of both machines right"
	case TicketForeign:
		return "ask who gave you the ticket for a new one: that peer has changed its pool since"
	case NotAdmin:
		return "ask an admin of the pool; shoal peers shows who is"
	default:
		return ""
	}
}
