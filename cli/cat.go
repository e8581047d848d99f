package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"path"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/shoal-os/shoal/node/api/client"
	"github.com/shoal-os/shoal/storage/chunk"
)

const linkPathHint = "a path follows the link or the CID after a /, with %, & and ? in it written %25, %26 and %3F"

func newCat(a *app) *cobra.Command {
	var flags peerFlags
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "cat LINK[/PATH]|/PATH",
		Short: "Print a file of a link or of the pool while it arrives",
		Long: "Writes a file to stdout, every byte verified before it is written, fetching what is not\n" +
			"here in order. What was fetched is kept for a while, and served. The link may be to a\n" +
			"file, or to a folder with the path of a file in it behind. Own shares can be read too.\n" +
			"A path that begins with / is one of the pool's files.",
		Example: "  shoal cat 'shoal:bafy…?n=film.mkv' | mpv -\n  shoal cat \"$LINK/notes/today.txt\"",
		Args:    argsRange(1, 1, "link"),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if isPoolPath(args[0]) {
				return a.withPeer(cmd.Context(), func(c *client.Client) error {
					return a.cat(cmd.Context(), &session{Client: c}, client.CatRequest{Link: args[0]}, path.Base(args[0]))
				})
			}
			link, inside, err := chunk.ParseLinkPath(args[0])
			if err != nil {
				return usagef(linkPathHint, "%s", clean(err.Error()))
			}
			if timeout < 0 {
				return usagef("", "a timeout cannot be negative")
			}
			s, err := a.join(cmd.Context(), flags.config(a))
			if err != nil {
				return err
			}
			defer closeSession(s, &err)
			label := path.Base(inside)
			if inside == "" {
				label = fileName(link)
			}
			req := client.CatRequest{Link: link.String(), Path: inside, Timeout: timeout.Seconds()}
			return a.cat(cmd.Context(), s, req, label)
		},
	}
	flags.add(cmd.Flags())
	cmd.Flags().DurationVar(&timeout, "timeout", 60*time.Second, "give up when nothing arrived for this long")
	return cmd
}

// cat copies the file to stdout. Whoever reads it may stop at any time, which is
// no failure worth a word.
func (a *app) cat(ctx context.Context, s *session, req client.CatRequest, label string) error {
	signal.Ignore(syscall.SIGPIPE) // the write says so, and the peer ends in order
	w := &counted{out: a.out, view: a.catView(label), total: -1}
	err := s.Cat(ctx, req, w, func(size int64) { w.begin(size) })
	w.end()
	if errors.Is(err, syscall.EPIPE) {
		return silent{exitSignal + int(syscall.SIGPIPE)}
	}
	return err
}

// catView shows progress on a terminal only, for what goes to a pipe or file.
func (a *app) catView(label string) view {
	if a.terminal && a.out == io.Writer(os.Stdout) && !term.IsTerminal(int(os.Stdout.Fd())) {
		return a.newView(label)
	}
	return nil
}

// counted shows how much of a file was written.
type counted struct {
	out         io.Writer
	view        view // nil: nowhere
	done, total int64
	started     time.Time
}

func (c *counted) begin(size int64) {
	c.total, c.started = size, time.Now()
	c.show()
}

func (c *counted) show() {
	if c.view == nil {
		return
	}
	p := client.Progress{Phase: "fetching", Done: c.done, Total: c.total, Peers: 1}
	if d := time.Since(c.started).Seconds(); d > 0 {
		p.Rate = float64(c.done) / d
	}
	c.view.update(p)
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.out.Write(p)
	c.done += int64(n)
	c.show()
	return n, err
}

func (c *counted) end() {
	if c.view != nil {
		c.view.end()
	}
}
