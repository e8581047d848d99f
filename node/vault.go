package node

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/shoal-os/shoal/dht/wire"
	"github.com/shoal-os/shoal/node/api/client"
	"github.com/shoal-os/shoal/storage"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/exchange"
)

const storeDir = "store"

func (n *Node) openStorage() (*storage.Storage, error) {
	s, err := storage.Open(storage.Config{
		Dir: filepath.Join(n.cfg.Home, storeDir), Host: n.host, Finder: n.dht, Log: n.cfg.Log,
	})
	if err != nil {
		return nil, client.Wrap(storageKind(err, client.KindHome), err, "`shoal doctor` looks at the home")
	}
	return s, nil
}

// Share indexes a path and seeds it until it is unshared, in this run and the
// next ones.
func (n *Node) Share(ctx context.Context, req client.ShareRequest, progress func(client.Progress)) (client.Share, error) {
	if err := absolute(req.Path); err != nil {
		return client.Share{}, err
	}
	s, err := n.storage.Share(ctx, req.Path, storage.ShareOptions{Name: req.Name}, shaped(progress))
	if err != nil {
		return client.Share{}, shareError(err)
	}
	return n.shareShape(s), nil
}

// Get fetches a link to a path and seeds it from there.
func (n *Node) Get(ctx context.Context, req client.GetRequest, progress func(client.Progress)) (client.GetResult, error) {
	if err := absolute(req.Dest); err != nil {
		return client.GetResult{}, err
	}
	link, err := chunk.ParseLink(req.Link)
	if err != nil {
		return client.GetResult{}, client.Wrap(client.KindInvalid, err, "")
	}
	n.fetching.Add(1)
	defer n.fetching.Add(-1)
	n.meet(link.Addrs)
	r, err := n.storage.Get(ctx, link, storage.GetOptions{
		Dest: req.Dest, Force: req.Force, Timeout: time.Duration(req.Timeout * float64(time.Second)),
	}, shaped(progress))
	if err != nil {
		return client.GetResult{}, n.getError(err)
	}
	return resultShape(r), nil
}

// meet offers the peers in a link to the DHT, which remembers those that
// answer: so the first link that somebody opens lets them into the table.
func (n *Node) meet(addrs []multiaddr.Multiaddr) {
	if infos, err := peer.AddrInfosFromP2pAddrs(addrs...); err == nil && !n.cfg.Offline {
		n.dht.AddPeers(infos...)
	}
}

// Shares is everything the peer seeds.
func (n *Node) Shares(context.Context) ([]client.Share, error) {
	shares := []client.Share{}
	for _, s := range n.storage.Shares() {
		shares = append(shares, n.shareShape(s))
	}
	return shares, nil
}

// Unshare forgets a share. The files stay.
func (n *Node) Unshare(_ context.Context, root string) error {
	c, err := chunk.ParseCID(root)
	if err != nil {
		return client.Wrap(client.KindInvalid, err, "`shoal shares` lists the roots")
	}
	return unshareError(n.storage.Unshare(c))
}

func unshareError(err error) error {
	if err == nil {
		return nil
	}
	return client.Wrap(storageKind(err, client.KindInternal), inPlainWords{err}, "`shoal shares` lists the roots")
}

func (n *Node) shareShape(s storage.Share) client.Share {
	return client.Share{
		Root:      s.Root.String(),
		Name:      s.Name,
		Link:      chunk.Link{Root: s.Root, Name: s.Name, Size: s.Size, Addrs: linkAddrs(n.host.ShareAddrs())}.String(),
		Path:      s.Path,
		Size:      s.Size,
		Files:     s.Files,
		State:     string(s.State),
		Have:      s.Have,
		Chunks:    s.Leaves,
		Problem:   s.Problem,
		Skipped:   append([]string{}, s.Skipped...),
		Added:     s.Added,
		Uploaded:  s.Uploaded,
		Peers:     s.Peers,
		Announced: n.announced(s.Root),
	}
}

func resultShape(r storage.GetResult) client.GetResult {
	out := client.GetResult{
		Path: r.Path, Root: r.Root.String(), Size: r.Size, Files: r.Files,
		Fetched: r.Fetched, Reused: r.Reused, Wasted: r.Wasted, Elapsed: r.Elapsed.Seconds(),
		Providers: []client.Provider{}, Banned: []client.Banned{},
	}
	for _, s := range r.Sources {
		out.Providers = append(out.Providers, client.Provider{ID: s.Peer.String(), Bytes: s.Bytes})
	}
	for _, b := range r.Banned {
		out.Banned = append(out.Banned, client.Banned{ID: b.Peer.String(), Why: wire.CleanText(b.Why)})
	}
	return out
}

// shaped passes progress on in the API's shape.
func shaped(progress func(client.Progress)) func(storage.Progress) {
	if progress == nil {
		return nil
	}
	return func(p storage.Progress) {
		progress(client.Progress{
			Phase: p.Phase, Done: p.Done, Total: p.Total, Files: p.Files, Peers: p.Peers, Rate: p.Rate, Note: wire.CleanText(p.Note),
		})
	}
}

// absolute refuses relative paths: the peer's working folder is not the caller's.
func absolute(path string) error {
	if !filepath.IsAbs(path) {
		return client.Wrap(client.KindInvalid, errors.New("the path is not absolute: "+path), "")
	}
	return nil
}

// storageKind is the one place where storage's errors become kinds of failure.
func storageKind(err error, otherwise client.Kind) client.Kind {
	switch {
	case errors.Is(err, context.Canceled):
		return client.KindStopping
	case errors.As(err, new(*exchange.NoProviderError)):
		return client.KindNotFound
	case errors.Is(err, storage.ErrNotShared):
		return client.KindNotFound
	case errors.Is(err, storage.ErrExists):
		return client.KindExists
	case errors.Is(err, storage.ErrSpace), errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return client.KindNoSpace
	case errors.Is(err, storage.ErrChanging):
		return client.KindChanged
	case errors.Is(err, chunk.ErrTree):
		return client.KindCorrupt
	case errors.Is(err, exchange.ErrBusy):
		return client.KindBusy
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS), errors.Is(err, syscall.ENOTDIR):
		return client.KindPermission
	case errors.Is(err, fs.ErrNotExist):
		return client.KindMissing
	default:
		return otherwise
	}
}

// inPlainWords takes away the names of the parts that an error came through,
// which say nothing to a person.
type inPlainWords struct{ error }

func (e inPlainWords) Error() string {
	text := e.error.Error()
	for {
		short := text
		for _, prefix := range []string{"storage: ", "get: ", "share: ", "exchange: ", "block: "} {
			short = strings.TrimPrefix(short, prefix)
		}
		if short == text {
			return text
		}
		text = short
	}
}

func (e inPlainWords) Unwrap() error { return e.error }

func shareError(err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	kind := storageKind(err, client.KindInternal)
	hint := ""
	if kind == client.KindChanged {
		hint = "share again when nothing writes to the files"
	}
	return client.Wrap(kind, inPlainWords{err}, hint)
}

// getError words why a get failed and what can be done about it.
func (n *Node) getError(err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	kind := storageKind(err, client.KindInternal)
	if kind == client.KindMissing {
		kind = client.KindPermission // nothing has to exist for a get but where it writes
	}
	return client.Wrap(kind, inPlainWords{err}, n.getHint(kind))
}

func (n *Node) getHint(kind client.Kind) string {
	switch kind {
	case client.KindNotFound:
		if n.dht.Table() == 0 {
			return "this peer knows no other: use the whole link, with its addresses, or give a peer with --bootstrap; is the sharing peer running?"
		}
		return "is a peer that shares it running and reachable? the whole link holds addresses; --timeout waits longer"
	case client.KindExists:
		return "save it elsewhere with -o, or replace what is there with --force"
	case client.KindNoSpace:
		return "free some space and run the same command again: what was verified is kept"
	case client.KindPermission:
		return "choose another destination with -o"
	case client.KindCorrupt:
		return "whoever made this link has to share it again; no other peer can help"
	case client.KindBusy:
		return "it is being fetched already; wait for that to end"
	default:
		return ""
	}
}
