package cli

import (
	"context"
	"fmt"
	"path"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoal-os/shoal/node/api/client"
)

func newMv(a *app) *cobra.Command {
	return newMoving(a, "mv", "Give pool files another path",
		"Gives a file or folder another path, at once: no bytes move.", (*client.Client).FileMove)
}

func newCp(a *app) *cobra.Command {
	return newMoving(a, "cp", "Give pool files a second path",
		"Gives a file or folder a second path. No bytes are copied; changing one later leaves the\nother as it is.", (*client.Client).FileCopy)
}

func newMoving(a *app, name, short, long string, do func(*client.Client, context.Context, client.FileRequest) (client.FileChange, error)) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: name + " /FROM… /TO", Short: short,
		Long: long + " A /TO that ends with /, or is a folder already, takes /FROM under its own name.",
		Args: argsRange(2, -1, "path"),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, p := range args {
				if err := poolPath(p); err != nil {
					return err
				}
			}
			return a.withPeer(cmd.Context(), func(c *client.Client) error {
				from, to := args[:len(args)-1], args[len(args)-1]
				into, err := a.isPoolFolder(cmd.Context(), c, to)
				if err != nil {
					return err
				}
				if into = into || strings.HasSuffix(to, "/"); len(from) > 1 && !into {
					return usagef("end it with / to make a folder of it", "several paths need a folder, and %s is none", clean(to))
				}
				for _, p := range from {
					req := client.FileRequest{Path: p, To: to, Force: force}
					if into {
						req.To = strings.TrimSuffix(to, "/") + "/" + path.Base(strings.TrimSuffix(p, "/"))
					}
					if _, err := do(c, cmd.Context(), req); err != nil {
						return err
					}
				}
				return nil
			})
		},
		ValidArgsFunction: a.completePoolPaths,
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "replace what is there")
	return cmd
}

func newMkdir(a *app) *cobra.Command {
	var parents bool
	cmd := &cobra.Command{
		Use:   "mkdir /PATH…",
		Short: "Make folders in the pool",
		Long:  "Makes folders. `put` makes those that it needs by itself.",
		Args:  argsRange(1, -1, "path"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.changeEach(cmd.Context(), args, client.FileRequest{Parents: parents}, (*client.Client).FileMkdir)
		},
		ValidArgsFunction: a.completePoolPaths,
	}
	cmd.Flags().BoolVarP(&parents, "parents", "p", false, "make the folders above too; no error if it is there")
	return cmd
}

func newRm(a *app) *cobra.Command {
	var recursive bool
	cmd := &cobra.Command{
		Use:   "rm /PATH…",
		Short: "Remove pool files",
		Long:  "Removes files, and with -r folders. They stay restorable for 30 days: `shoal restore /PATH`.",
		Args:  argsRange(1, -1, "path"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.changeEach(cmd.Context(), args, client.FileRequest{Recursive: recursive}, (*client.Client).FileRemove)
		},
		ValidArgsFunction: a.completePoolPaths,
	}
	cmd.Flags().BoolVarP(&recursive, "recursive", "r", false, "remove folders with all that is in them")
	return cmd
}

func newRestore(a *app) *cobra.Command {
	var version string
	cmd := &cobra.Command{
		Use:   "restore /PATH…",
		Short: "Bring back removed or earlier versions of pool files",
		Long: "Brings back what was removed, with all that was removed below it, or the version of a file\n" +
			"before the present one. `shoal history /PATH` lists them, and --version chooses one.",
		Args: argsRange(1, -1, "path"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if version != "" && len(args) > 1 {
				return usagef("", "--version is of one path")
			}
			return a.changeEach(cmd.Context(), args, client.FileRequest{Version: version}, (*client.Client).FileRestore)
		},
		ValidArgsFunction: a.completePoolPaths,
	}
	cmd.Flags().StringVar(&version, "version", "", "the version to bring back, as `shoal history` shows it")
	return cmd
}

func newPin(a *app) *cobra.Command {
	var list bool
	cmd := &cobra.Command{
		Use:   "pin /PATH…",
		Short: "Keep pool files on this machine",
		Long: "Has this machine keep a copy of all that is at a path, now and later, so that it can be\n" +
			"read without a network. With --list it lists the pins.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if list {
				return a.withPeer(cmd.Context(), func(c *client.Client) error {
					return a.list(rows{nil, func(f client.PoolFile) []string { return []string{f.Path} }},
						func(each func(client.PoolFile) error) error { return c.FilePins(cmd.Context(), each) })
				})
			}
			if err := argsRange(1, -1, "path")(cmd, args); err != nil {
				return err
			}
			return a.changeEach(cmd.Context(), args, client.FileRequest{}, (*client.Client).FilePin)
		},
		ValidArgsFunction: a.completePoolPaths,
	}
	cmd.Flags().BoolVar(&list, "list", false, "list what is pinned")
	return cmd
}

func newUnpin(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "unpin /PATH…",
		Short: "End a pin",
		Args:  argsRange(1, -1, "path"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.changeEach(cmd.Context(), args, client.FileRequest{}, (*client.Client).FileUnpin)
		},
		ValidArgsFunction: a.completePoolPaths,
	}
}

// changeEach makes the same change to each path.
func (a *app) changeEach(ctx context.Context, paths []string, req client.FileRequest,
	do func(*client.Client, context.Context, client.FileRequest) (client.FileChange, error)) error {
	for _, p := range paths {
		if err := poolPath(p); err != nil {
			return err
		}
	}
	return a.withPeer(ctx, func(c *client.Client) error {
		total := client.FileChange{}
		for _, p := range paths {
			req.Path = p
			out, err := do(c, ctx, req)
			if err != nil {
				return err
			}
			total.Changed += out.Changed
		}
		if a.json {
			return a.printJSON(total)
		}
		if total.Changed > len(paths) {
			a.notef("%s", fmt.Sprintf("%d paths changed", total.Changed))
		}
		return nil
	})
}
