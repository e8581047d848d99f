package node

import (
	"context"
	"io"
	"strings"
	"time"

	"github.com/shoal-os/shoal/node/api/client"
	"github.com/shoal-os/shoal/storage"
	"github.com/shoal-os/shoal/storage/chunk"
)

// Open opens what a link names for reading in place; Close it. It is what
// package web shows to browsers.
func (n *Node) Open(ctx context.Context, link chunk.Link, opt storage.OpenOptions) (*storage.Content, error) {
	n.meet(link.Addrs)
	c, err := n.storage.Open(ctx, link, opt)
	if err != nil {
		return nil, n.getError(err)
	}
	return c, nil
}

// Holds reports whether what a root holds is known here, so that opening it
// takes nothing from the network.
func (n *Node) Holds(root chunk.CID) bool { return n.storage.Holds(root) }

// Cat writes one file of a link, or of the pool, to what begin returns.
func (n *Node) Cat(ctx context.Context, req client.CatRequest, begin func(size int64) io.Writer) error {
	if strings.HasPrefix(req.Link, "/") {
		return n.catPool(ctx, req.Link, begin)
	}
	link, err := chunk.ParseLink(req.Link)
	if err != nil {
		return client.Wrap(client.KindInvalid, err, "")
	}
	c, err := n.Open(ctx, link, storage.OpenOptions{Timeout: time.Duration(req.Timeout * float64(time.Second))})
	if err != nil {
		return err
	}
	defer c.Close()
	i, err := c.Find(req.Path)
	if err != nil {
		return client.Wrap(client.KindNotFound, inPlainWords{err}, "`shoal serve` shows what is in it")
	}
	f, err := c.OpenFile(ctx, i)
	if err != nil {
		return client.Wrap(client.KindInvalid, inPlainWords{err}, "put the path of a file in it behind the link: LINK/path")
	}
	defer f.Close()
	if _, err := io.Copy(begin(f.Size()), f); err != nil {
		return n.getError(err)
	}
	return nil
}
