package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/shoal-os/shoal/storage/block"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/exchange"
)

// ErrWebSeed reports a URL that cannot be a web seed of a share.
var ErrWebSeed = errors.New("cannot be a web seed")

// checkWebSeeds is checkWeb for each URL of a share.
func checkWebSeeds(ctx context.Context, urls []string, x block.Index) error {
	w := chunk.NewWalker(x.Root, chunk.Limits{})
	for _, n := range x.Nodes {
		if err := w.Add(n); err != nil {
			return err
		}
	}
	tree, err := w.Tree()
	if err != nil {
		return err
	}
	for _, url := range urls {
		if err := checkWeb(ctx, url, tree, x.Size); err != nil {
			return err
		}
	}
	return nil
}

// checkWeb makes sure that a URL serves ranges of the file that was hashed. Its
// first and its last leaf are compared; who fetches verifies all the others.
func checkWeb(ctx context.Context, url string, tree *chunk.Tree, size int64) error {
	if err := chunk.CheckWebSeed(url); err != nil {
		return fmt.Errorf("%w: %w", ErrWebSeed, err)
	}
	if tree.Entries[0].Kind != chunk.File {
		return fmt.Errorf("%w: only a single file can come from a web server, and this is a %s", ErrWebSeed, tree.Entries[0].Kind)
	}
	if size == 0 {
		return fmt.Errorf("%w: the file is empty", ErrWebSeed)
	}
	last := len(tree.Leaves) - 1
	for _, i := range []int{0, last} {
		l := &tree.Leaves[i]
		n := int64(l.Size)
		if n < 0 {
			n = size // a raw root is one leaf
		}
		data, _, err := exchange.WebRead(ctx, url, l.Offset, n, size, true)
		if err != nil {
			return fmt.Errorf("%w: %s: %w", ErrWebSeed, url, err)
		}
		if chunk.SumRaw(data) != l.CID {
			return fmt.Errorf("%w: %s has other bytes than the file", ErrWebSeed, url)
		}
	}
	return nil
}

// Download copies what a URL names, which the person at this machine gave, to a
// new file at dest. Interrupted, it leaves nothing. It is for sharing what a web
// server has; what the bytes are is said by nobody but the server.
//
// Errors: ErrExists, chunk's for the URL, the server's and the disk's own.
func (s *Storage) Download(ctx context.Context, url, dest string, progress func(Progress)) error {
	if err := download(ctx, url, dest, progress); err != nil {
		return fmt.Errorf("storage: download: %w", err)
	}
	return nil
}

func download(ctx context.Context, url, dest string, progress func(Progress)) error {
	if err := chunk.CheckWebSeed(url); err != nil {
		return fmt.Errorf("%w: %w", ErrWebSeed, err)
	}
	if exists(dest) {
		return fmt.Errorf("%s: %w", dest, ErrExists)
	}
	if progress == nil {
		progress = func(Progress) {}
	}
	body, size, err := exchange.WebGet(ctx, url)
	if err != nil {
		return err
	}
	defer body.Close()
	if err := checkSpace(filepath.Dir(dest), size); err != nil {
		return err
	}
	partial := dest + block.PartialSuffix
	f, err := os.OpenFile(partial, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("%s: %w", partial, ErrExists)
	} else if err != nil {
		return err
	}
	out := &downloading{w: f, total: size, progress: progress}
	_, err = io.Copy(out, body)
	if err = errors.Join(err, f.Close()); err == nil {
		switch err = os.Link(partial, dest); { // unlike a rename, it replaces nothing
		case errors.Is(err, os.ErrExist):
			err = fmt.Errorf("%s: %w", dest, ErrExists)
		case err != nil:
			return os.Rename(partial, dest) // a file system without links
		}
	}
	return errors.Join(err, os.Remove(partial))
}

// downloading shows how much of a download is here.
type downloading struct {
	w           io.Writer
	done, total int64
	rate        rates
	said        time.Time
	progress    func(Progress)
}

func (d *downloading) Write(p []byte) (int, error) {
	n, err := d.w.Write(p)
	d.done += int64(n)
	if now := time.Now(); now.Sub(d.said) >= progressPeriod {
		d.said = now
		d.progress(Progress{Phase: string(exchange.Fetching), Done: d.done, Total: d.total, Peers: 1, Rate: d.rate.at(now, d.done)})
	}
	return n, err
}
