package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/shoal-os/shoal/node/api/client"
	"github.com/spf13/cobra"
)

const (
	// watchInterval is how often a foreground share looks who knows of it by now.
	watchInterval = time.Second
	// audienceInterval is the least time between two lines about it.
	audienceInterval = 5 * time.Second
	skippedShown     = 5
)

func newShare(a *app) *cobra.Command {
	var flags peerFlags
	var qr bool
	var source shareSource
	var until seedFlags
	cmd := &cobra.Command{
		Use:   "share PATH…",
		Short: "Share files or folders and print a link to each",
		Long: "Hashes each path, prints a link as the only line on stdout, and seeds it. Nothing is\n" +
			"copied, so the files have to stay where they are. The running peer seeds; with none\n" +
			"running, this command is one itself until ctrl-C. A share outlives both: the next\n" +
			"peer on this home seeds it again, until `shoal unshare`.\n\n" +
			"With --from URL the link of a single file says that a web server has it as well, and\n" +
			"who fetches it takes from there too; without a PATH, the file is downloaded first. With\n" +
			"--car the path is a CAR file, which is unpacked beside it or to -o and shared.",
		Example: "  shoal share photos\n  shoal share --qr report.pdf\n  shoal share --from https://example.org/disk.iso disk.iso",
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			reqs, err := source.requests(cmd, args)
			if err != nil {
				return err
			}
			if err := until.check(); err != nil {
				return err
			}
			for i := range reqs {
				reqs[i].SeedRatio, reqs[i].SeedTime = until.ratio, until.time.Seconds()
			}
			s, err := a.join(cmd.Context(), flags.config(a))
			if err != nil {
				return err
			}
			defer closeSession(s, &err)
			shares, err := a.share(cmd.Context(), s, reqs, qr)
			if err != nil {
				return err
			}
			if s.own == nil {
				a.notef("the running peer (process %d) seeds", s.Endpoint().PID)
				return nil
			}
			return a.seed(cmd.Context(), s, shares)
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveDefault
		},
	}
	flags.add(cmd.Flags())
	cmd.Flags().BoolVar(&qr, "qr", false, "draw each link as a QR code, on stderr")
	source.add(cmd.Flags())
	until.add(cmd.Flags())
	return cmd
}

// sharePaths checks the paths before anything is started for them.
func sharePaths(args []string) ([]string, error) {
	var paths []string
	for _, arg := range args {
		path, err := filepath.Abs(arg)
		if err != nil {
			return nil, fmt.Errorf("share: %w", err)
		}
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			return nil, client.Errorf(client.KindMissing, "", "share: there is no file or folder %s", clean(arg))
		} else if err != nil {
			return nil, client.Wrap(client.KindPermission, fmt.Errorf("share: %w", err), "")
		}
		paths = append(paths, path)
	}
	return paths, nil
}

// share does the requests one after the other and prints each link as soon as
// it is served.
func (a *app) share(ctx context.Context, s *session, reqs []client.ShareRequest, qr bool) ([]client.Share, error) {
	var shares []client.Share
	for _, req := range reqs {
		v := a.newView(filepath.Base(req.Path))
		share, err := s.Share(ctx, req, v.update)
		v.end()
		if err != nil {
			return nil, err
		}
		shares = append(shares, share)
		if err := a.printShare(share, qr); err != nil {
			return nil, err
		}
	}
	return shares, nil
}

func (a *app) printShare(share client.Share, qr bool) error {
	a.notef("sharing %s: %s, %s", clean(share.Name), plural(share.Files, "file"), bytesText(share.Size))
	for _, path := range share.Skipped[:min(len(share.Skipped), skippedShown)] {
		a.notef("left out, for it is no file, folder or link: %s", clean(path))
	}
	if n := len(share.Skipped) - skippedShown; n > 0 {
		a.notef("and %d more left out", n)
	}
	if share.Problem != "" {
		a.notef("%s", clean(share.Problem))
	}
	if a.json {
		if err := a.printJSON(share); err != nil {
			return err
		}
	} else if _, err := fmt.Fprintln(a.out, share.Link); err != nil {
		return err
	}
	if !qr {
		return nil
	}
	code := qrText(share.Link, a.color)
	if code == "" {
		a.notef("the link is too long for a QR code")
		return nil
	}
	_, err := fmt.Fprint(a.err, code)
	return err
}

// seed is the rest of a foreground share's life: it says who knows of the
// shares as that changes, until it is told to stop.
func (a *app) seed(ctx context.Context, s *session, shares []client.Share) error {
	a.notef("seeding until ctrl-C; others run `shoal get 'LINK'`, with the quotes")
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	said, saidAt := "", time.Time{}
	for {
		if now := a.audience(ctx, s, shares); now != "" && now != said && time.Since(saidAt) > audienceInterval {
			said, saidAt = now, time.Now()
			a.notef("%s", now)
		}
		select {
		case <-tick.C:
			if a.seededEnough(ctx, s, shares) {
				a.notef("stopped seeding: it was seeded enough")
				return nil
			}
		case <-ctx.Done():
			a.notef("stopped seeding; `shoal up` seeds again, `shoal unshare` forgets the share")
			return nil
		case <-s.own.Done():
			a.notef("stopped seeding: the peer was told to stop")
			return nil
		}
	}
}

// audience says how many peers know of the shares: those connected, and whether
// the DHT was told, so that a bare CID finds this peer.
func (a *app) audience(ctx context.Context, s *session, shares []client.Share) string {
	status, err := s.Status(ctx)
	if err != nil {
		return ""
	}
	listed, err := s.Shares(ctx)
	if err != nil {
		return ""
	}
	told, fetching := 0, 0
	for _, share := range shares {
		for _, l := range listed {
			if l.Root == share.Root {
				fetching += l.Peers
				if !l.Announced.IsZero() {
					told++
				}
			}
		}
	}
	text := "no other peer is connected; the link's addresses work all the same"
	if len(status.Peers) > 0 {
		text = "connected to " + plural(len(status.Peers), "peer")
		if told == len(shares) {
			text += ", announced to the DHT (" + plural(status.Table, "peer") + " in the table)"
		}
	}
	if fetching > 0 {
		text += fmt.Sprintf(", %d fetching", fetching)
	}
	return text
}

// closeSession closes s, its failure counting only when all else went well.
func closeSession(s *session, err *error) {
	if closeErr := s.close(); *err == nil {
		*err = closeErr
	}
}
