package node

import (
	"context"
	"errors"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/dht/roster"
	"github.com/shoal-os/shoal/dht/wire"
	"github.com/shoal-os/shoal/node/api"
	"github.com/shoal-os/shoal/node/api/client"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/placement"
	"github.com/shoal-os/shoal/storage/repair"
	"github.com/shoal-os/shoal/storage/tree"
)

// pathsTold bounds the paths of an answer.
const pathsTold = 1000

func lendsAnything(r ident.Role) bool { return r != ident.RoleTerminal && r != ident.RoleNone }

// FileChange changes the name of something.
func (n *Node) FileChange(ctx context.Context, what api.FileChange, req client.FileRequest) (client.FileChange, error) {
	c, err := n.circle()
	if err != nil {
		return client.FileChange{}, err
	}
	changed, err := change(ctx, c.tree, what, req)
	if err != nil {
		return client.FileChange{}, fileError(err)
	}
	return client.FileChange{Changed: changed}, nil
}

func change(ctx context.Context, t *tree.Tree, what api.FileChange, req client.FileRequest) (int, error) {
	switch what {
	case api.FileMkdir:
		return 1, t.Mkdir(ctx, req.Path, tree.MkdirOptions{Parents: req.Parents})
	case api.FileMove:
		return 1, t.Move(ctx, req.Path, req.To, req.Force)
	case api.FileCopy:
		return 1, t.Copy(ctx, req.Path, req.To, req.Force)
	case api.FileRemove:
		return 1, t.Remove(ctx, req.Path, req.Recursive)
	case api.FileRestore:
		var id tree.ID
		if req.Version != "" {
			var err error
			if id, err = tree.ParseID(req.Version); err != nil {
				return 0, client.Wrap(client.KindInvalid, err, "`shoal history` lists the versions")
			}
		}
		return t.Restore(ctx, req.Path, id)
	case api.FilePurge:
		return t.Purge(ctx, req.Path)
	case api.FilePin:
		return 1, t.Pin(ctx, req.Path)
	case api.FileUnpin:
		return 1, t.Unpin(ctx, req.Path)
	}
	return 0, client.Errorf(client.KindInvalid, "", "there is no change %q", string(what))
}

// FileSpace tells of the pool's disk, and how safe what is on it is.
func (n *Node) FileSpace(context.Context) (client.Space, error) {
	c, err := n.circle()
	if err != nil {
		return client.Space{}, err
	}
	o := c.repair.Overview()
	usage, err := c.tree.Usage("/")
	if err != nil {
		return client.Space{}, fileError(err)
	}
	out := client.Space{
		Members: []client.MemberSpace{}, Files: usage.Files, Classes: classes(o.Totals), Thin: o.Totals.Thin.Bytes,
		Repair: client.Repairing{Fetching: len(o.Jobs), Waiting: o.Totals.Waiting, Bytes: o.Mended, Paused: o.Paused},
		Store: client.StoreUsage{
			Quota: o.Store.Quota, Held: o.Store.Held, Cached: o.Store.Cached, Quarantined: o.Store.Quarantined,
			Damaged: o.Store.Damaged, Waste: o.Store.Waste, Free: o.Store.Free,
		},
	}
	for _, class := range out.Classes {
		out.Size += class.Bytes
	}
	members := map[peer.ID]roster.Member{}
	for _, m := range c.pool.Members() {
		members[m.ID] = m
	}
	for _, h := range o.Members {
		m, ok := members[h.ID]
		if !ok {
			continue
		}
		out.Members = append(out.Members, client.MemberSpace{
			ID: h.ID.String(), Name: wire.CleanText(m.Name), State: m.State.String(), Space: int64(h.Offers.Space), Held: h.Held,
		})
	}
	return out, nil
}

func classes(t placement.Totals) []client.SafetyClass {
	out := []client.SafetyClass{}
	for _, c := range []struct {
		state string
		class placement.Class
	}{{"safe", t.Full}, {"short", t.Short}, {"single", t.One}, {"asleep", t.Asleep}, {"lost", t.Lost}} {
		out = append(out, client.SafetyClass{State: c.state, Pieces: c.class.Pieces, Bytes: c.class.Bytes, Survives: c.class.Survives})
	}
	return out
}

// FileWhatIf tells what a member's departure would mean.
func (n *Node) FileWhatIf(_ context.Context, remove string) (client.WhatIf, error) {
	c, err := n.circle()
	if err != nil {
		return client.WhatIf{}, err
	}
	m, err := findMember(c.pool.Members(), remove)
	if err != nil {
		return client.WhatIf{}, err
	}
	w := c.repair.WhatIf(m.ID)
	out := client.WhatIf{Peer: wire.CleanText(m.Name), Held: w.Held, Lost: []string{}, Moved: w.MovedBytes, Room: w.NoRoom == 0, Asleep: w.Asleep}
	lost := map[chunk.CID]bool{}
	for _, id := range w.Lost {
		lost[id] = true
	}
	out.Lost, out.Losses = pathsWith(c.tree, lost)
	return out, nil
}

// pathsWith are the files that have one of the pieces.
func pathsWith(t *tree.Tree, pieces map[chunk.CID]bool) (paths []string, count int) {
	paths = []string{}
	if len(pieces) == 0 {
		return paths, 0
	}
	for e, err := range t.Walk("/") {
		if err != nil {
			break
		}
		for _, p := range e.File.Pieces {
			if pieces[p.ID] {
				if count++; count <= pathsTold {
					paths = append(paths, wire.CleanText(e.Path))
				}
				break
			}
		}
	}
	return paths, count
}

// FileScrub reads everything that this peer holds again.
func (n *Node) FileScrub(ctx context.Context, progress func(client.Progress)) (client.ScrubReport, error) {
	c, err := n.circle()
	if err != nil {
		return client.ScrubReport{}, err
	}
	r, err := c.repair.ScrubNow(ctx, func(done, total int64) {
		if progress != nil {
			progress(client.Progress{Phase: "verifying", Done: done, Total: total, Peers: 1})
		}
	})
	if err != nil {
		return client.ScrubReport{}, fileError(err)
	}
	return client.ScrubReport{
		Pieces: r.Pieces, Bytes: r.Bytes, Damaged: r.Damaged, Repaired: r.Repaired, Missing: r.Missing, Orphans: r.Orphans,
		Elapsed: r.Elapsed.Seconds(),
	}, nil
}

// FileCollect puts aside what no name speaks of.
func (n *Node) FileCollect(ctx context.Context, purge bool) (client.Collected, error) {
	c, err := n.circle()
	if err != nil {
		return client.Collected{}, err
	}
	before := n.pieces.Usage()
	r, err := c.repair.CollectNow(ctx, purge)
	if err != nil {
		return client.Collected{}, collectError(err)
	}
	after := n.pieces.Usage()
	return client.Collected{Quarantined: r.Quarantined, Purged: r.Purged, Freed: max(after.Free-before.Free, 0)}, nil
}

func collectError(err error) error {
	if errors.Is(err, repair.ErrNotInStep) {
		return client.Wrap(client.KindUnready, err, "wait until another member is online: what this peer takes for needless may have a name there")
	}
	return fileError(err)
}
