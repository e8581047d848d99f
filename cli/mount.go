package cli

import (
	"fmt"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/shoal-os/shoal/node/api/client"
)

func newMount(a *app) *cobra.Command {
	var webdav, readOnly bool
	var req client.MountRequest
	cmd := &cobra.Command{
		Use:   "mount --webdav",
		Short: "Open the pool's files as a folder of this desktop",
		Long: "Serves the pool's files over WebDAV on this machine, prints the URL as the only line on\n" +
			"stdout, and goes on until ctrl-C. Every desktop opens it as a folder: files are fetched as\n" +
			"they are read, and what is written is on this machine's disk before it is acknowledged,\n" +
			"and copied to other members after that. The password is in the URL; only this machine can\n" +
			"connect. GNOME: dav://… in Files; KDE: webdav://…; macOS: Go > Connect to Server;\n" +
			"Windows: net use Z: and the URL with the password as a folder, which is on stderr.",
		Example: "  shoal mount --webdav --http 127.0.0.1:8080",
		Args:    argsRange(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !webdav {
				return usagef("`shoal mount --webdav`", "say how to mount it: --webdav")
			}
			req.ReadOnly = readOnly
			return a.withPeer(cmd.Context(), func(c *client.Client) error {
				return c.FileMount(cmd.Context(), req, a.printMounted)
			})
		},
	}
	cmd.Flags().BoolVar(&webdav, "webdav", false, "as a WebDAV server on this machine")
	cmd.Flags().BoolVar(&readOnly, "read-only", false, "refuse whatever would change something")
	cmd.Flags().StringVar(&req.Listen, "http", "127.0.0.1:0", "where to listen on this machine; port 0 is any")
	return cmd
}

// printMounted prints the URL with the password in it, as clients take it.
func (a *app) printMounted(m client.Mounted) error {
	if a.json {
		return a.printJSON(m)
	}
	u, err := url.Parse(m.URL)
	if err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	u.User = url.UserPassword(m.User, m.Password)
	if _, err := fmt.Fprintln(a.out, u); err != nil {
		return err
	}
	a.notef("user %s, password %s; for clients that send none: %s%s/", m.User, m.Password, m.URL, m.Password)
	a.notef("serving on this machine until ctrl-C")
	return nil
}
