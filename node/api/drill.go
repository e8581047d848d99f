package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/shoal-os/shoal/node/api/client"
)

// Driller is the peer's part in fault drills. by is the peer id of the member that asks, as its connection proved it; empty is
// the owner of the home.
type Driller interface {
	Drill(ctx context.Context) (client.Drill, error)
	DrillAsk(ctx context.Context, by string) (client.Drill, error)
	DrillFall(ctx context.Context, by string, req client.DrillFall) (client.Drill, error)
	DrillStop(ctx context.Context) (client.Drill, error)
}

func routeDrill(a huma.API, p Driller) {
	route(a, operation(a, "GET", "/v1/drill", "drill", "The peer's part in fault drills", ""), p.Drill)
	ask := operation(a, "POST", "/v1/drill/ask", "drill-ask", "Prepare a drill", "For half a minute other members are refused.")
	ask.DefaultStatus = http.StatusOK
	route(a, ask, func(ctx context.Context) (client.Drill, error) { return p.DrillAsk(ctx, callerOf(ctx)) })
	act(a, operation(a, "POST", "/v1/drill/fall", "drill-fall", "Drop out for a while",
		"The peer cuts its connections and closes its part in the pool, a moment after the answer, and comes back by itself. Only where its owner allows drills."),
		func(ctx context.Context, req client.DrillFall) (client.Drill, error) {
			return p.DrillFall(ctx, callerOf(ctx), req)
		})
	stop := operation(a, "POST", "/v1/drill/stop", "drill-stop", "Come back at once, and end a drill run from here", "")
	stop.DefaultStatus = http.StatusOK
	route(a, stop, p.DrillStop)
}
