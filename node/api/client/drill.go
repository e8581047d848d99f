package client

import (
	"context"
	"net/http"
	"time"
)

// The bounds of how long a peer drops out in a drill.
const (
	DrillLeast = 5 * time.Second
	DrillMost  = 5 * time.Minute
)

// Drill is a peer's part in fault drills.
type Drill struct {
	Allowed bool      `json:"allowed" doc:"Whether its owner lets members have it drop out in a drill (up --allow-drill)"`
	Until   time.Time `json:"until,omitzero" doc:"It has dropped out, or is about to, until then; it comes back by itself"`
	By      string    `json:"by,omitempty" doc:"Name of the member that had it drop out, or that lately said that it prepares a drill"`
	Stops   int       `json:"stops" doc:"How often a drill was stopped from this peer since it started: who runs one from here ends it when this grows"`
}

// DrillFall is the body of POST /v1/drill/fall.
type DrillFall struct {
	For float64 `json:"for_s" minimum:"5" maximum:"300" doc:"Seconds after which it comes back by itself"`
}

// Drill returns the peer's part in drills, now.
func (c *Client) Drill(ctx context.Context) (Drill, error) {
	return call[Drill](ctx, c, http.MethodGet, "/v1/drill")
}

// DrillAsk says that the caller prepares a drill. For half a minute the peer refuses that, and to drop out, to every other member:
// so of two who prepare a drill at a time at least one learns of it.
func (c *Client) DrillAsk(ctx context.Context) (Drill, error) {
	return call[Drill](ctx, c, http.MethodPost, "/v1/drill/ask")
}

// DrillFall has the peer drop out, a moment after it has answered. The caller has asked before.
func (c *Client) DrillFall(ctx context.Context, req DrillFall) (Drill, error) {
	return send[Drill](ctx, c, http.MethodPost, "/v1/drill/fall", req)
}

// DrillStop has this very peer come back at once, and a drill that is run from it end.
func (c *Client) DrillStop(ctx context.Context) (Drill, error) {
	return call[Drill](ctx, c, http.MethodPost, "/v1/drill/stop")
}
