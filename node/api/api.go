// Package api serves a peer's local HTTP and JSON interface, and owns its
// OpenAPI document, which is generated from the Go types of node/api/client.
//
// It knows how to carry requests, events and errors, and who may knock: the
// owner of the home over a Unix socket, or, where there is none, whoever holds
// the token, over loopback TCP. What the requests do is the [Peer]'s; nothing
// here decides about shares or transfers.
package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/danielgtaylor/huma/v2/sse"
	"github.com/shoal-os/shoal/node/api/client"
)

// Version is the API's own version, in the paths as /v1.
const Version = "1.0.0"

const bodyBytesMax = 64 << 10 // the largest request is a link and two paths

// newHandler returns the API of p without its guard, and the document of it.
func newHandler(p Peer) (http.Handler, *huma.OpenAPI) {
	mux := http.NewServeMux()
	registry := huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer)
	registry.RegisterTypeAlias(errorModelType, errorType)
	a := humago.New(mux, huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{
				Title:   "shoal peer",
				Version: Version,
				Description: "The local interface of one shoal peer. Where it listens, and on loopback TCP its token " +
					"(header " + client.TokenHeader + "), is in api.json in the peer's home.",
			},
			Components: &huma.Components{Schemas: registry},
		},
		OpenAPIPath:   "/openapi",
		Formats:       huma.DefaultFormats,
		DefaultFormat: "application/json",
		Transformers:  []huma.Transformer{reshape},
	})
	a.UseMiddleware(checkRole)
	routes(a, p)
	mux.Handle(reachPattern, reach(p, mux))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		answerError(w, &client.Error{
			Kind: client.KindNotFound, Text: "there is no " + r.Method + " " + r.URL.Path, Hint: "see /openapi.json",
		})
	})
	return mux, a.OpenAPI()
}

type body[T any] struct{ Body T }

type rootParam struct {
	Root string `path:"root" maxLength:"128" doc:"CID of the share's root"`
}

// operation describes a route; every one may fail with the one shape of error.
func operation(a huma.API, method, path, id, summary, description string) huma.Operation {
	return huma.Operation{
		Method: method, Path: path, OperationID: id, Summary: summary, Description: description,
		MaxBodyBytes: bodyBytesMax,
		Responses: map[string]*huma.Response{"default": {
			Description: "Any failure",
			Content: map[string]*huma.MediaType{"application/json": {
				Schema: a.OpenAPI().Components.Schemas.Schema(errorType, true, "Error"),
			}},
		}},
	}
}

func routes(a huma.API, p Peer) {
	route(a, operation(a, "GET", "/v1/status", "status", "How the peer is doing", ""), p.Status)
	route(a, operation(a, "GET", "/v1/id", "id", "Who the peer is", ""), p.ID)
	route(a, operation(a, "GET", "/v1/doctor", "doctor", "The peer's checks of itself", ""), p.Doctor)
	route(a, operation(a, "GET", "/v1/shares", "shares", "Everything this peer seeds", ""),
		func(ctx context.Context) (client.ShareList, error) {
			shares, err := p.Shares(ctx)
			return client.ShareList{Shares: shares}, err
		})
	huma.Register(a, operation(a, "DELETE", "/v1/shares/{root}", "unshare", "Stop seeding a share", "The files stay."),
		func(ctx context.Context, in *rootParam) (*struct{}, error) {
			return nil, fail(p.Unshare(ctx, in.Root))
		})
	huma.Register(a, operation(a, "POST", "/v1/down", "down", "Stop the peer", "Answers before the peer has stopped."),
		func(context.Context, *struct{}) (*body[client.Stopping], error) {
			p.Stop()
			return &body[client.Stopping]{client.Stopping{PID: processID()}}, nil
		})
	routeCat(a, p)
	routePool(a, p)
	routeFiles(a, p)
	routeJobs(a, p)
	routeDrill(a, p)
	sse.Register(a, operation(a, "POST", "/v1/share", "share", "Index a path and seed it", eventsText), events(client.Share{}),
		func(ctx context.Context, in *body[client.ShareRequest], send sse.Sender) {
			follow(ctx, send, func(ctx context.Context, progress func(client.Progress)) (client.Share, error) {
				return p.Share(ctx, in.Body, progress)
			})
		})
	sse.Register(a, operation(a, "POST", "/v1/get", "get", "Fetch a link", eventsText), events(client.GetResult{}),
		func(ctx context.Context, in *body[client.GetRequest], send sse.Sender) {
			follow(ctx, send, func(ctx context.Context, progress func(client.Progress)) (client.GetResult, error) {
				return p.Get(ctx, in.Body, progress)
			})
		})
}

// route registers a question without parameters.
func route[T any](a huma.API, op huma.Operation, ask func(context.Context) (T, error)) {
	huma.Register(a, op, func(ctx context.Context, _ *struct{}) (*body[T], error) {
		answer, err := ask(ctx)
		if err != nil {
			return nil, fail(err)
		}
		return &body[T]{answer}, nil
	})
}
