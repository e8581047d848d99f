package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Pool is the answer to GET /v1/pool: the pool as one machine, as this peer
// sees it now.
type Pool struct {
	ID       string    `json:"id" doc:"The pool's id"`
	Self     string    `json:"self" doc:"This peer's id"`
	Standing string    `json:"standing" doc:"ok, or why this peer is no member in force itself"`
	Waking   bool      `json:"waking" doc:"Whether this machine has just started or woken up, so that members who seem away may not be"`
	Members  []Member  `json:"members" nullable:"false" doc:"The members in force, this peer included, by name"`
	Former   []Member  `json:"former" nullable:"false" doc:"Peers that were members: evicted, gone, or run out"`
	Totals   Totals    `json:"totals" doc:"What the members that are online lend together"`
	All      Totals    `json:"all" doc:"What all members lend together"`
	Names    Directory `json:"names" doc:"The names that the members agree on"`
	Problem  string    `json:"problem,omitempty" doc:"What keeps the membership from being stored"`
}

// Member is one peer of the pool.
type Member struct {
	ID    string    `json:"id" doc:"The peer's id"`
	Name  string    `json:"name" doc:"What it is called in the pool"`
	Role  string    `json:"role" doc:"terminal, member or admin"`
	State string    `json:"state" doc:"online, away, absent or departed"`
	Self  bool      `json:"self,omitempty" doc:"Whether it is the peer that answers"`
	Since time.Time `json:"since,omitzero" doc:"When the state began"`
	Seen  time.Time `json:"seen,omitzero" doc:"When it was last heard of; absent when it never was"`
	Ended string    `json:"ended,omitempty" doc:"Why it is no member any more"`
	Lends Lends     `json:"lends" doc:"What it offers the pool, by its own word"`
	Paths []Path    `json:"paths" nullable:"false" doc:"The connections to it, the one in use first"`
}

// Lends is what a member offers the pool.
type Lends struct {
	Cores    int    `json:"cores" doc:"Processor cores"`
	Memory   int64  `json:"memory" doc:"Bytes of memory"`
	Space    int64  `json:"space" doc:"Bytes of disk in all"`
	Free     int64  `json:"free" doc:"Bytes of it that are not used yet"`
	Power    string `json:"power" doc:"mains, battery or unknown"`
	Battery  int    `json:"battery,omitempty" doc:"Per cent, when it runs on one"`
	AlwaysOn bool   `json:"always_on" doc:"Whether its owner marked it as always on"`
	Version  string `json:"version,omitempty" doc:"Its version of shoal"`
	System   string `json:"system,omitempty" doc:"Operating system and architecture"`
}

// Totals sums up what members lend.
type Totals struct {
	Members int   `json:"members" doc:"How many they are"`
	Cores   int   `json:"cores" doc:"Processor cores"`
	Memory  int64 `json:"memory" doc:"Bytes of memory"`
	Space   int64 `json:"space" doc:"Bytes of disk in all"`
	Free    int64 `json:"free" doc:"Bytes of it that are not used yet"`
}

// Directory describes the pool's names as this peer holds them.
type Directory struct {
	Records    int       `json:"records" doc:"Names that have a value"`
	Tombstones int       `json:"tombstones" doc:"Deletions that are remembered"`
	Bytes      int64     `json:"bytes" doc:"Bytes of all of them"`
	Digest     string    `json:"digest" doc:"Members with the same digest hold the same"`
	Waiting    int       `json:"waiting,omitempty" doc:"Records kept apart because their author may not write yet"`
	Synced     time.Time `json:"synced,omitzero" doc:"When this peer was last known to be in step with another"`
	OffsetMS   int64     `json:"offset_ms,omitempty" doc:"The pool's time minus this machine's, in milliseconds"`
	Damaged    []string  `json:"damaged,omitempty" doc:"Files that could not be read whole when the peer started"`
}

// InviteRequest is the body of POST /v1/pool/invite.
type InviteRequest struct {
	Role string  `json:"role,omitempty" enum:"terminal,member,admin" doc:"What the joiner will be; empty is member"`
	TTL  float64 `json:"ttl_s,omitempty" minimum:"0" doc:"Seconds for which the ticket is good; 0 is a day"`
	Uses int     `json:"uses,omitempty" minimum:"0" maximum:"1000" doc:"How many peers may join with it; 0 is one"`
}

// Invitation is the answer to POST /v1/pool/invite.
type Invitation struct {
	Ticket  string    `json:"ticket" doc:"The text that lets somebody join; it holds a secret"`
	Role    string    `json:"role" doc:"What the joiner will be"`
	Uses    int       `json:"uses" doc:"How many peers may join with it"`
	Expires time.Time `json:"expires" doc:"Until when it is good"`
}

// JoinRequest is the body of POST /v1/pool/join.
type JoinRequest struct {
	Ticket     string `json:"ticket" minLength:"1" maxLength:"4096" doc:"The ticket"`
	TakeTheirs bool   `json:"take_theirs,omitempty" doc:"Leave this peer's own pool although it has other members or files"`
	Yes        bool   `json:"yes,omitempty" doc:"Join without asking whether the check words are the same"`
}

// JoinQuestion is the SSE event "confirm" of POST /v1/pool/join: the work goes
// on once POST /v1/pool/answer has answered it.
type JoinQuestion struct {
	Token   string `json:"token,omitempty" doc:"Names the question in the answer; absent when none is awaited"`
	Words   string `json:"words" doc:"The check words; the inviter sees the same"`
	Inviter string `json:"inviter" doc:"Peer id of the inviter"`
	Role    string `json:"role" doc:"What this peer will be"`
	Pool    string `json:"pool" doc:"The pool's id"`
}

// PoolAnswer is the body of POST /v1/pool/answer.
type PoolAnswer struct {
	Token  string `json:"token" minLength:"1" maxLength:"64" doc:"Of the question"`
	Accept bool   `json:"accept" doc:"Whether the words are the same and the join is to go on"`
}

// LeaveRequest is the body of POST /v1/pool/leave.
type LeaveRequest struct {
	Force bool `json:"force,omitempty" doc:"Leave even when the pool is left without an admin"`
}

// MemberRequest names a member, in the bodies of POST /v1/pool/evict and
// POST /v1/pool/promote.
type MemberRequest struct {
	Peer string `json:"peer" minLength:"1" maxLength:"128" doc:"A member's name, the beginning of one, or its peer id"`
}

// PoolEvent is the SSE event "pool" of GET /v1/pool/events: something that
// happened to the membership.
type PoolEvent struct {
	Seq   uint64    `json:"seq" doc:"Counts the events since the peer started"`
	Time  time.Time `json:"time" doc:"When it happened"`
	Kind  string    `json:"kind" doc:"watching (the first, with the newest sequence number), joining (proved its ticket), joined, online, away, absent, departed, left, evicted, renamed, role"`
	Peer  string    `json:"peer" doc:"Peer id of whom it is about"`
	Name  string    `json:"name" doc:"Its name"`
	Role  string    `json:"role,omitempty" doc:"Its role"`
	Words string    `json:"words,omitempty" doc:"The check words of one who joins"`
	Token string    `json:"token,omitempty" doc:"Names the question whether it may, where an answer is awaited"`
}

// The names of the pool's SSE events.
const (
	EventConfirm = "confirm"
	EventPool    = "pool"
)

// Pool returns the pool as the peer sees it.
func (c *Client) Pool(ctx context.Context) (Pool, error) {
	return call[Pool](ctx, c, http.MethodGet, "/v1/pool")
}

// Invite makes a ticket.
func (c *Client) Invite(ctx context.Context, req InviteRequest) (Invitation, error) {
	return send[Invitation](ctx, c, http.MethodPost, "/v1/pool/invite", req)
}

// Evict ends a member's membership for good.
func (c *Client) Evict(ctx context.Context, req MemberRequest) (Member, error) {
	return send[Member](ctx, c, http.MethodPost, "/v1/pool/evict", req)
}

// Promote makes a member an admin.
func (c *Client) Promote(ctx context.Context, req MemberRequest) (Member, error) {
	return send[Member](ctx, c, http.MethodPost, "/v1/pool/promote", req)
}

// Leave ends the peer's own membership; it is in a new pool of its own then.
func (c *Client) Leave(ctx context.Context, req LeaveRequest) (Pool, error) {
	return send[Pool](ctx, c, http.MethodPost, "/v1/pool/leave", req)
}

// Answer answers a question of Join or PoolEvents.
func (c *Client) Answer(ctx context.Context, req PoolAnswer) error {
	_, err := send[struct{}](ctx, c, http.MethodPost, "/v1/pool/answer", req)
	return err
}

// Join makes the peer a member of a ticket's pool. confirm is called with the
// check words, from this goroutine; unless req.Yes, what it returns decides.
func (c *Client) Join(ctx context.Context, req JoinRequest, confirm func(JoinQuestion) (bool, error)) (Pool, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the request when confirm failed
	return follow(ctx, c, http.MethodPost, "/v1/pool/join", req, func(e event, out *Pool) (done bool, err error) {
		if e.Name != EventConfirm {
			return handle(e, out, nil)
		}
		q, err := decode[JoinQuestion](e)
		if err != nil {
			return false, err
		}
		accept, err := confirm(q)
		if err != nil || q.Token == "" {
			return false, err
		}
		return false, c.Answer(ctx, PoolAnswer{Token: q.Token, Accept: accept})
	})
}

// PoolEvents calls each once with the kind "watching", and then for every event
// after the given sequence number (0: those that the peer still remembers) until
// ctx ends or each returns an error.
// With approve, peers that join wait for this caller's Answer to the event's
// token, and are refused when the caller goes away.
func (c *Client) PoolEvents(ctx context.Context, after uint64, approve bool, each func(PoolEvent) error) error {
	query := url.Values{"after": {strconv.FormatUint(after, 10)}, "approve": {strconv.FormatBool(approve)}}
	_, err := follow(ctx, c, http.MethodGet, "/v1/pool/events?"+query.Encode(), nil, func(e event, _ *struct{}) (bool, error) {
		if e.Name != EventPool {
			return handle(e, new(struct{}), nil)
		}
		p, err := decode[PoolEvent](e)
		if err != nil {
			return false, err
		}
		return false, each(p)
	})
	return err
}
