package node

import (
	"cmp"
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
	"github.com/shoal-os/shoal/storage/chunk/car"
	"github.com/shoal-os/shoal/storage/exchange"
)

const storeDir = "store"

func (n *Node) openStorage() (*storage.Storage, error) {
	s, err := storage.Open(storage.Config{
		Dir: filepath.Join(n.cfg.Home, storeDir), Host: n.host, Finder: n.dht, Log: n.cfg.Log, Preferred: n.preferred,
		Up: n.cfg.Up, Down: n.cfg.Down, SealAll: n.cfg.SealAll, Pieces: n.pieces, Member: n.preferred,
	})
	if err != nil {
		return nil, openError(err)
	}
	return s, nil
}

// Share indexes a path and seeds it until it is unshared, in this run and the
// next ones.
func (n *Node) Share(ctx context.Context, req client.ShareRequest, progress func(client.Progress)) (client.Share, error) {
	for _, path := range []string{req.Path, cmp.Or(req.Dest, req.Path)} {
		if err := absolute(path); err != nil {
			return client.Share{}, err
		}
	}
	s, err := n.share(ctx, req, shaped(progress))
	if err != nil {
		return client.Share{}, shareError(err)
	}
	return n.shareShape(s), nil
}

// share makes the files if the request asks for that, and shares them.
func (n *Node) share(ctx context.Context, req client.ShareRequest, progress func(storage.Progress)) (storage.Share, error) {
	limit := storage.Limit{Ratio: req.SeedRatio, Time: seconds(req.SeedTime)}
	if req.Car {
		s, err := n.storage.Import(ctx, req.Path, storage.ImportOptions{Dest: req.Dest, Force: req.Force}, progress)
		if err == nil {
			err = n.storage.SetLimit(s.Root, limit)
		}
		return s, err
	}
	if req.Download && len(req.From) > 0 {
		if err := n.storage.Download(ctx, req.From[0], req.Path, progress); err != nil {
			return storage.Share{}, err
		}
	}
	return n.storage.Share(ctx, req.Path, storage.ShareOptions{Name: req.Name, Web: req.From, Limit: limit}, progress)
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

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
	get := n.storage.Get
	if req.Car {
		get = n.storage.Export
	}
	r, err := get(ctx, link, storage.GetOptions{
		Dest: req.Dest, Force: req.Force, Timeout: seconds(req.Timeout), Only: req.Only, Sequential: req.Sequential,
		WebPrivate: req.PrivateWebSeeds, Limit: storage.Limit{Ratio: req.SeedRatio, Time: seconds(req.SeedTime)},
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
		Link:      chunk.Link{Root: s.Root, Name: s.Name, Size: s.Size, Web: s.Web, Addrs: linkAddrs(n.host.ShareAddrs())}.String(),
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
		Web:       s.Web,
		SeedRatio: s.Limit.Ratio,
		SeedTime:  s.Limit.Time.Seconds(),
		Seeded:    s.Limit.Seeded.Seconds(),
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
	for _, w := range r.Web {
		out.Web = append(out.Web, client.WebSeed{URL: wire.CleanText(w.URL), Bytes: w.Bytes, Why: wire.CleanText(w.Why)})
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

// openError is the error of a part that could not open what it keeps in the home.
func openError(err error) error {
	if err == nil {
		return nil
	}
	kind := storageKind(err, client.KindHome)
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return client.Wrap(kind, err, "its disk is full, and what is noted at a start does not fit: free some space and start it again")
	}
	return client.Wrap(kind, err, "`shoal doctor` looks at the home")
}

// storageKind is the one place where storage's errors become kinds of failure.
func storageKind(err error, otherwise client.Kind) client.Kind {
	switch {
	case errors.Is(err, context.Canceled):
		return client.KindStopping
	case errors.As(err, new(*exchange.NoProviderError)):
		return client.KindNotFound
	case errors.Is(err, storage.ErrNotShared), errors.Is(err, storage.ErrNoMatch), errors.Is(err, storage.ErrNoEntry):
		return client.KindNotFound
	case errors.Is(err, storage.ErrPattern), errors.Is(err, storage.ErrNotFile), errors.Is(err, storage.ErrLimit), errors.Is(err, storage.ErrWebSeed):
		return client.KindInvalid
	case errors.Is(err, car.ErrFormat), errors.Is(err, storage.ErrImport):
		return client.KindCorrupt
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
	return withoutPrefixes(e.error.Error(), "storage: ", "get: ", "share: ", "import: ", "export: ", "open: ", "download: ", "exchange: ", "block: ", "car: ")
}

// withoutPrefixes takes prefixes away from a text as long as it has one.
func withoutPrefixes(text string, prefixes ...string) string {
	for {
		short := text
		for _, prefix := range prefixes {
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
	switch {
	case kind == client.KindChanged:
		hint = "share again when nothing writes to the files"
	case errors.Is(err, storage.ErrWebSeed):
		hint = "a web seed has to be the same single file, on a server that answers range requests"
	case kind == client.KindExists:
		hint = "choose another place with -o, or replace what is there with --force"
	case kind == client.KindCorrupt:
		hint = "make the CAR file anew, whole and of one root, as `shoal get LINK -o FILE.car` does"
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
	hint := n.getHint(kind)
	if errors.Is(err, storage.ErrNoMatch) {
		hint = onlyHint
	}
	return client.Wrap(kind, inPlainWords{err}, hint)
}

const onlyHint = "a pattern without / matches names at any depth, one with / whole paths; ** stands for any folders"

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
