package api

import (
	"context"

	"github.com/shoal-os/shoal/node/api/client"
)

// Peer is what the API serves: the running peer, in small parts.
//
// Methods are called from many goroutines at once. Errors that are a
// [client.Error] cross the API as they are; any other becomes an internal one.
type Peer interface {
	Describer
	Sharer
	Getter
	Reader
	Pooler
	Filer
	Tasker
	Driller
	Stopper
}

// Describer tells what the peer is and how it does.
type Describer interface {
	Status(ctx context.Context) (client.Status, error)
	ID(ctx context.Context) (client.Identity, error)
	Doctor(ctx context.Context) (client.Doctor, error)
}

// Sharer owns the shares. Share calls progress as often as it likes and from
// any goroutine; it returns early when ctx ends. Unshare of an unknown root is
// [client.KindNotFound].
type Sharer interface {
	Share(ctx context.Context, req client.ShareRequest, progress func(client.Progress)) (client.Share, error)
	Shares(ctx context.Context) ([]client.Share, error)
	Unshare(ctx context.Context, root string) error
}

// Getter fetches a link. Progress and ctx are as in [Sharer].
type Getter interface {
	Get(ctx context.Context, req client.GetRequest, progress func(client.Progress)) (client.GetResult, error)
}

// Stopper asks the peer to close; it returns at once, and may be called again.
type Stopper interface {
	Stop()
}
