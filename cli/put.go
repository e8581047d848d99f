package cli

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoal-os/shoal/node/api/client"
)

// copiesMax bounds --copies.
const copiesMax = 16

func newPut(a *app) *cobra.Command {
	var req client.FilePutRequest
	cmd := &cobra.Command{
		Use:   "put SRC… /PATH",
		Short: "Copy files or folders into the pool",
		Long: "Copies files or folders into the pool, where every member sees them and three machines keep\n" +
			"them. It is done once the bytes are durable on two machines (on one, and it says so, when\n" +
			"the pool has no other now); the third copy follows. A path that ends with /, or is a folder\n" +
			"already, takes SRC under its own name. Files that are there already with the same size and\n" +
			"time are not read again, so a put that was cut off goes on. With - for SRC it stores stdin.",
		Example: "  shoal put photos /photos\n  shoal put a.txt b.txt /docs/\n  pg_dump mydb | shoal put - /backup/mydb.sql",
		Args:    argsRange(2, -1, "source or path in the pool"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if req.Copies < 0 || req.Copies > copiesMax {
				return usagef("", "--copies must be between 1 and %d", copiesMax)
			}
			return a.withPeer(cmd.Context(), func(c *client.Client) error { return a.put(cmd, c, args, req) })
		},
	}
	cmd.Flags().IntVar(&req.Copies, "copies", 0, "copies to keep (default 3)")
	cmd.Flags().BoolVar(&req.AnyName, "any-name", false, "take names that Windows or macOS cannot hold")
	cmd.Flags().BoolVar(&req.NoWait, "no-wait", false, "do not wait for the second copy")
	return cmd
}

func (a *app) put(cmd *cobra.Command, c *client.Client, args []string, req client.FilePutRequest) error {
	sources, to := args[:len(args)-1], args[len(args)-1]
	if err := poolPath(to); err != nil {
		return err
	}
	into, err := a.isPoolFolder(cmd.Context(), c, to)
	if err != nil {
		return err
	}
	if len(sources) > 1 && !into && !strings.HasSuffix(to, "/") {
		return usagef("end it with / to make a folder of it", "several sources need a folder, and %s is none", clean(to))
	}
	for _, src := range sources {
		if src == "-" {
			if into || strings.HasSuffix(to, "/") {
				return usagef("give the whole path, as /backup/mydb.sql", "stdin has no name to put into the folder %s", clean(to))
			}
			out, err := c.FileWrite(cmd.Context(), to, req.Copies, a.in)
			if err != nil {
				return err
			}
			return a.printPut(out)
		}
		one := req
		if one.Source, err = filepath.Abs(src); err != nil {
			return fmt.Errorf("put: %w", err)
		}
		one.Path = to
		if into || strings.HasSuffix(to, "/") {
			one.Path = strings.TrimSuffix(to, "/") + "/" + filepath.Base(one.Source)
		}
		v := a.newView(filepath.Base(one.Source))
		out, err := c.FilePut(cmd.Context(), one, v.update)
		v.end()
		if err != nil {
			return err
		}
		if err := a.printPut(out); err != nil {
			return err
		}
	}
	return nil
}

// printPut prints the path, and on stderr how it went.
func (a *app) printPut(out client.FileTransfer) error {
	for _, s := range out.Skipped {
		a.notef("left out: %s", clean(s))
	}
	if a.json {
		return a.printJSON(out)
	}
	a.notef("%s", transferText(out))
	if out.Files > 0 && out.Copies < 2 && out.Wanted > 1 {
		a.notef("%s this machine has the only copy so far; more follow as soon as other members with space are there", a.paint(yellow, "note:"))
	}
	_, err := fmt.Fprintln(a.out, clean(out.Path))
	return err
}

// transferText words a put or get.
func transferText(out client.FileTransfer) string {
	text := fmt.Sprintf("%s, %s in %.1fs", plural(out.Files, "file"), bytesText(out.Size), out.Elapsed)
	if out.Elapsed >= 0.1 && out.Size > 0 {
		text += fmt.Sprintf(" (%s)", rateText(float64(out.Size)/out.Elapsed))
	}
	if out.Same > 0 {
		text += fmt.Sprintf(", %s already there", plural(out.Same, "file"))
	}
	if out.Copies > 0 {
		text += ", " + copiesText(out.Copies)
	}
	return text
}

func copiesText(n int) string {
	if n == 1 {
		return "1 copy"
	}
	return fmt.Sprintf("%d copies", n)
}
