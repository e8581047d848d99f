package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/sse"

	"github.com/shoal-os/shoal/node/api/client"
)

// Pooler is the peer's part in its pool.
type Pooler interface {
	PoolTeller
	PoolMember
	PoolAdmin
	Reacher
}

// PoolTeller tells of the pool. PoolEvents calls each, from one goroutine, for
// every event after a sequence number until ctx ends, which is no error, or each
// fails; with approve, whoever joins meanwhile waits for an Answer.
type PoolTeller interface {
	Pool(ctx context.Context) (client.Pool, error)
	PoolEvents(ctx context.Context, after uint64, approve bool, each func(client.PoolEvent) error) error
}

// PoolMember changes the peer's own membership. Join calls ask once, with what
// its owner should see; a question with a token waits for its Answer.
type PoolMember interface {
	Join(ctx context.Context, req client.JoinRequest, ask func(client.JoinQuestion) error) (client.Pool, error)
	Leave(ctx context.Context, req client.LeaveRequest) (client.Pool, error)
	Answer(ctx context.Context, req client.PoolAnswer) error
}

// PoolAdmin does what only admins may.
type PoolAdmin interface {
	Invite(ctx context.Context, req client.InviteRequest) (client.Invitation, error)
	Evict(ctx context.Context, req client.MemberRequest) (client.Member, error)
	Promote(ctx context.Context, req client.MemberRequest) (client.Member, error)
}

const (
	joinText = "Answers with server-sent events: one `confirm`, then one `done` or one `error`. A `confirm` with a token waits " +
		"for POST /v1/pool/answer. Closing the connection cancels the work."
	watchText = "Answers with server-sent events, one `pool` for each, until the connection is closed."
)

type eventsInput struct {
	After   uint64 `query:"after" doc:"Only events with greater sequence numbers; 0 is all that the peer remembers"`
	Approve bool   `query:"approve" doc:"Peers that join wait for an answer to the token in their event, as long as this connection lasts"`
}

func routePool(a huma.API, p Pooler) {
	route(a, operation(a, "GET", "/v1/pool", "pool", "The pool as one machine", ""), p.Pool)
	act(a, operation(a, "POST", "/v1/pool/invite", "invite", "Make a ticket", "Only an admin can."), p.Invite)
	act(a, operation(a, "POST", "/v1/pool/evict", "evict", "End a membership for good", "Only an admin can."), p.Evict)
	act(a, operation(a, "POST", "/v1/pool/promote", "promote", "Make a member an admin", "Only an admin can."), p.Promote)
	act(a, operation(a, "POST", "/v1/pool/leave", "leave", "Leave the pool", "The peer is in a new pool of its own then."), p.Leave)
	act(a, operation(a, "POST", "/v1/pool/answer", "answer", "Answer a question about check words", ""),
		func(ctx context.Context, req client.PoolAnswer) (struct{}, error) {
			return struct{}{}, p.Answer(ctx, req)
		})
	sse.Register(a, operation(a, "POST", "/v1/pool/join", "join", "Join a pool", joinText), map[string]any{
		client.EventConfirm: client.JoinQuestion{}, client.EventDone: client.Pool{}, client.EventError: client.Error{},
	}, func(ctx context.Context, in *body[client.JoinRequest], send sse.Sender) {
		pool, err := p.Join(ctx, in.Body, func(q client.JoinQuestion) error { return send.Data(q) })
		conclude(send, pool, err)
	})
	sse.Register(a, operation(a, "GET", "/v1/pool/events", "pool-events", "What happens to the membership", watchText), map[string]any{
		client.EventPool: client.PoolEvent{}, client.EventDone: struct{}{}, client.EventError: client.Error{},
	}, func(ctx context.Context, in *eventsInput, send sse.Sender) {
		err := p.PoolEvents(ctx, in.After, in.Approve, func(e client.PoolEvent) error { return send.Data(e) })
		if ctx.Err() == nil && err != nil {
			_ = send.Data(*asError(err))
		}
	})
}

// conclude sends how a work ended. Nobody may be there to read it.
func conclude(send sse.Sender, value any, err error) {
	if err != nil {
		value = *asError(err)
	}
	_ = send.Data(value)
}

// act registers a request with a body whose answer is one value.
func act[In, Out any](a huma.API, op huma.Operation, do func(context.Context, In) (Out, error)) {
	op.DefaultStatus = http.StatusOK
	huma.Register(a, op, func(ctx context.Context, in *body[In]) (*body[Out], error) {
		answer, err := do(ctx, in.Body)
		if err != nil {
			return nil, fail(err)
		}
		return &body[Out]{answer}, nil
	})
}
