package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoal-os/shoal/node/api/client"
)

// completeMax bounds the names offered to a shell.
const completeMax = 200

// isPoolPath tells a path in the pool from a link: both are arguments of get and cat.
func isPoolPath(arg string) bool { return strings.HasPrefix(arg, "/") }

// poolPath refuses what cannot be a path in the pool before anything is started for it.
func poolPath(arg string) error {
	if !isPoolPath(arg) {
		return usagef("paths in the pool begin with /, as /photos", "%q is no path in the pool", clean(arg))
	}
	return nil
}

// withPeer does something with the running peer, or the member that --peer names.
func (a *app) withPeer(ctx context.Context, do func(*client.Client) error) error {
	c, err := a.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	return do(c)
}

// isPoolFolder tells whether a path is there and a folder.
func (a *app) isPoolFolder(ctx context.Context, c *client.Client, path string) (bool, error) {
	f, err := c.FileStat(ctx, path)
	if client.KindOf(err) == client.KindNotFound {
		return false, nil
	}
	return f.Kind == "folder", err
}

// completePoolPaths offers the names in the folder that is being typed.
func (a *app) completePoolPaths(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
	if err := a.applySettings(cmd); err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	dir := typed[:strings.LastIndexByte(typed, '/')+1]
	if dir == "" {
		dir = "/"
	}
	var out []string
	_ = a.withPeer(cmd.Context(), func(c *client.Client) error {
		return c.FileList(cmd.Context(), dir, client.ListOptions{}, func(f client.PoolFile) error {
			path := f.Path
			if f.Kind == "folder" {
				path += "/"
			}
			if strings.HasPrefix(path, typed) && len(out) < completeMax {
				out = append(out, path)
			}
			return nil
		})
	})
	return out, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}
