package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/shoal-os/shoal/node/api/client"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/spf13/cobra"
)

func newGet(a *app) *cobra.Command {
	var flags peerFlags
	var output string
	var force bool
	var timeout time.Duration
	var choice getChoice
	var until seedFlags
	cmd := &cobra.Command{
		Use:   "get LINK|/PATH",
		Short: "Fetch what a link, a CID or a path in the pool names",
		Long: "Fetches a file or folder from everyone who has it, verifies every byte, and prints\n" +
			"where it is. Put a link into quotes: it holds ? and &. It is saved under the name in\n" +
			"the link, in the current folder, unless -o says otherwise; a destination that ends\n" +
			"with / and is a folder keeps the link's name inside it. What was verified is kept\n" +
			"when get is interrupted, and the same command goes on from there. The running peer\n" +
			"fetches, and seeds what it has; with none running, this command is one itself.\n\n" +
			"With --only, the folder holds what matches and nothing else; a later get to the same\n" +
			"place, with another --only or none, adds to it. A pattern without / matches names at\n" +
			"any depth, one with / the whole path; ** stands for any number of folders.\n\n" +
			"With --seed-ratio or --seed-time, get goes on to seed until one of them is reached or\n" +
			"ctrl-C; a running peer does it in the background. With --car, or -o FILE.car, all of it\n" +
			"is written into one CAR file (CARv1), always the same for the same link.\n\n" +
			"A path that begins with / is one of the pool's files: the running peer copies it here from\n" +
			"whoever has it. Files that are here already with the same size and time are left alone.",
		Example: "  shoal get 'shoal:bafy…?n=photos'\n  shoal get bafy… -o photos --timeout 10m",
		Args:    argsRange(1, 1, "link"),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if isPoolPath(args[0]) {
				return a.getPoolFile(cmd, args[0], output, force)
			}
			req, err := getRequest(args[0], output)
			if err != nil {
				return err
			}
			if cutOff(args[0]) {
				a.notef("note: if your shell cut the link at its first &, run this again with the link in quotes")
			}
			req.Force, req.Timeout = force, timeout.Seconds()
			if err := errors.Join(choice.apply(&req), until.check()); err != nil {
				return err
			}
			req.SeedRatio, req.SeedTime = until.ratio, until.time.Seconds()
			if timeout < 0 {
				return usagef("", "a timeout cannot be negative")
			}
			s, err := a.join(cmd.Context(), flags.config(a))
			if err != nil {
				return err
			}
			defer closeSession(s, &err)
			if err := a.get(cmd.Context(), s, req); err != nil || !until.set() {
				return err
			}
			return a.seedOn(cmd.Context(), s, req)
		},
	}
	flags.add(cmd.Flags())
	cmd.Flags().StringVarP(&output, "output", "o", "", "where to save it")
	cmd.Flags().BoolVar(&force, "force", false, "replace what is at the destination")
	cmd.Flags().DurationVar(&timeout, "timeout", 60*time.Second, "give up when nothing arrived for this long")
	choice.add(cmd.Flags())
	until.add(cmd.Flags())
	return cmd
}

// getPoolFile copies a path of the pool to this machine.
func (a *app) getPoolFile(cmd *cobra.Command, from, output string, force bool) error {
	for _, f := range []string{"only", "sequential", "car", "seed-ratio", "seed-time"} {
		if cmd.Flags().Changed(f) {
			return usagef("", "--%s is for links; %s is a path in the pool", f, clean(from))
		}
	}
	name := path.Base(from)
	if name == "/" {
		name = "pool"
	}
	dest, err := destination(output, name)
	if err != nil {
		return err
	}
	return a.withPeer(cmd.Context(), func(c *client.Client) error {
		v := a.newView(name)
		out, err := c.FileGet(cmd.Context(), client.FileGetRequest{Path: from, Dest: dest, Force: force}, v.update)
		v.end()
		if err != nil {
			return err
		}
		for _, s := range out.Skipped {
			a.notef("left out: %s", clean(s))
		}
		if a.json {
			return a.printJSON(out)
		}
		a.notef("%s", transferText(out))
		_, err = fmt.Fprintln(a.out, out.Path)
		return err
	})
}

// getRequest checks link and destination before anything is started for them.
func getRequest(arg, output string) (client.GetRequest, error) {
	link, err := chunk.ParseLink(arg)
	if err != nil {
		hint := "a link looks like shoal:bafy…?n=NAME and needs quotes in most shells; a bare CID works too"
		if _, statErr := os.Lstat(arg); statErr == nil {
			hint = "that is a path on this machine: `shoal share` makes a link to it"
		}
		return client.GetRequest{}, usagef(hint, "%s", clean(err.Error()))
	}
	dest, err := destination(output, fileName(link))
	return client.GetRequest{Link: link.String(), Dest: dest, Car: meansCAR(output, link.Name)}, err
}

// cutOff tells whether a link looks as if a shell took its first & for its own:
// our links have a size after the name.
func cutOff(arg string) bool {
	_, query, ok := strings.Cut(arg, "?")
	return ok && strings.HasPrefix(query, "n=") && !strings.Contains(query, "&")
}

// destination is the absolute path that output and a link's name come to.
func destination(output, name string) (string, error) {
	dest := output
	switch {
	case output == "":
		dest = name
	case os.IsPathSeparator(output[len(output)-1]):
		if info, err := os.Stat(output); err == nil && info.IsDir() {
			dest = filepath.Join(output, name)
		}
	}
	dest, err := filepath.Abs(dest)
	if err != nil {
		return "", fmt.Errorf("get: %w", err)
	}
	return dest, nil
}

// fileName makes a file's name of a link's, which a stranger wrote: nothing
// that leads elsewhere, that hides the file, or that a later command could take
// for a flag. Without a usable name it is the CID.
func fileName(link chunk.Link) string {
	name := strings.Map(func(r rune) rune {
		if r == '/' || r == '\\' {
			return '_'
		}
		return r
	}, clean(link.Name))
	name = strings.TrimLeft(strings.TrimSpace(name), ".-")
	name = strings.TrimSpace(name)
	if chunk.CheckName(name, runtime.GOOS) != nil {
		return link.Root.String()
	}
	return name
}

func (a *app) get(ctx context.Context, s *session, req client.GetRequest) error {
	v := a.newView(filepath.Base(req.Dest))
	result, err := s.Get(ctx, req, v.update)
	v.end()
	if err != nil {
		return a.getFailure(ctx, err)
	}
	for _, w := range result.Web {
		if w.Why != "" {
			a.notef("did not use the web seed %s: %s", clean(w.URL), clean(w.Why))
		}
	}
	for _, b := range result.Banned {
		a.notef("dropped peer %s: %s", b.ID, clean(b.Why))
	}
	if a.json {
		return a.printJSON(result)
	}
	a.notef("%s", summary(result))
	_, err = fmt.Fprintln(a.out, result.Path)
	return err
}

// getFailure adds to an interruption what becomes of the bytes.
func (a *app) getFailure(ctx context.Context, err error) error {
	var sig interrupted
	if isCanceled(err) && errors.As(context.Cause(ctx), &sig) {
		a.notef("interrupted: what was verified is kept, and the same command goes on from there")
	}
	return err
}

// summary words how a get went.
func summary(r client.GetResult) string {
	elapsed := time.Duration(r.Elapsed * float64(time.Second))
	text := fmt.Sprintf("%s in %s", bytesText(r.Size), elapsed.Round(10*time.Millisecond))
	if r.Fetched > 0 {
		text += fmt.Sprintf(", %s fetched", bytesText(r.Fetched))
		if r.Elapsed > 0 {
			text += " at " + rateText(float64(r.Fetched)/r.Elapsed)
		}
		text += " from " + sourcesText(r)
	}
	if r.Reused > 0 {
		text += fmt.Sprintf(", %s already here", bytesText(r.Reused))
	}
	return text
}
