package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoal-os/shoal/node/api/client"
)

func newLs(a *app) *cobra.Command {
	var opt client.ListOptions
	cmd := &cobra.Command{
		Use:   "ls [/PATH…]",
		Short: "List pool files",
		Long: "Lists the files of the pool. With -l it shows mode, how safe the bytes are, size, time,\n" +
			"who wrote it and its name. COPIES is how many there are, of how many there should be, and\n" +
			"what that means: safe; short: fewer than wanted; single: one copy only; asleep: no machine\n" +
			"with a copy is there now; lost. So many as are on machines that are not there now are \"away\".\n" +
			"A file survives one departure less than it has copies. A file that two members wrote apart\n" +
			"stands there twice, one of them marked with its author.",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withPeer(cmd.Context(), func(c *client.Client) error { return a.listEach(cmd.Context(), c, args, opt) })
		},
		ValidArgsFunction: a.completePoolPaths,
	}
	cmd.Flags().BoolVarP(&opt.Long, "long", "l", false, "show everything, how safe it is included")
	cmd.Flags().BoolVarP(&opt.Recursive, "recursive", "R", false, "show everything below, with whole paths")
	return cmd
}

func newFind(a *app) *cobra.Command {
	var opt client.ListOptions
	cmd := &cobra.Command{
		Use:   "find PATTERN [/PATH]",
		Short: "Find pool files by name",
		Long: "Prints the paths that match a pattern. One without / matches names at any depth, one with\n" +
			"/ the path below /PATH; ** stands for any number of folders. Put it into quotes.",
		Example: "  shoal find '*.jpg' /photos",
		Args:    argsRange(1, 2, "pattern"),
		RunE: func(cmd *cobra.Command, args []string) error {
			opt.Pattern, opt.Recursive = args[0], true
			return a.withPeer(cmd.Context(), func(c *client.Client) error { return a.listEach(cmd.Context(), c, args[1:], opt) })
		},
	}
	cmd.Flags().BoolVarP(&opt.Long, "long", "l", false, "show everything, as ls -l does")
	return cmd
}

func newDu(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "du [/PATH…]",
		Short: "Show what folders of the pool take",
		Long:  "Shows files and bytes below each folder in /PATH, each file counted once for each path.",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withPeer(cmd.Context(), func(c *client.Client) error {
				return a.listEach(cmd.Context(), c, args, client.ListOptions{Sum: true})
			})
		},
		ValidArgsFunction: a.completePoolPaths,
	}
}

func newHistory(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "history /PATH",
		Short: "List the versions of a pool file",
		Long: "Lists the versions of a path, newest first. Those that were replaced or removed are kept for\n" +
			"30 days; `shoal restore /PATH --version V` brings one back.",
		Args: argsRange(1, 1, "path"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := poolPath(args[0]); err != nil {
				return err
			}
			return a.withPeer(cmd.Context(), func(c *client.Client) error {
				return a.list(a.historyRows(), func(each func(client.PoolFile) error) error { return c.FileHistory(cmd.Context(), args[0], each) })
			})
		},
		ValidArgsFunction: a.completePoolPaths,
	}
}

func (a *app) listEach(ctx context.Context, c *client.Client, paths []string, opt client.ListOptions) error {
	if len(paths) == 0 {
		paths = []string{"/"}
	}
	for _, p := range paths {
		if err := poolPath(p); err != nil {
			return err
		}
		if !a.json && opt == (client.ListOptions{Recursive: opt.Recursive}) {
			if err := a.listNames(ctx, c, p, opt.Recursive); err != nil {
				return err
			}
			continue
		}
		rows := a.rowsOf(opt)
		if err := a.list(rows, func(each func(client.PoolFile) error) error { return c.FileList(ctx, p, opt, each) }); err != nil {
			return err
		}
	}
	return nil
}

// listNames prints names, or paths where everything below is listed. They may be a hundred thousand.
func (a *app) listNames(ctx context.Context, c *client.Client, path string, recursive bool) (err error) {
	out := bufio.NewWriterSize(a.out, 64<<10)
	defer flush(out, &err)
	return c.FileNames(ctx, path, recursive, func(name []byte) error {
		if !recursive {
			name = name[bytes.LastIndexByte(name[:max(len(name)-1, 0)], '/')+1:]
		}
		if plain(name) {
			_, _ = out.Write(name)
		} else {
			_, _ = out.WriteString(clean(string(name)))
		}
		return out.WriteByte('\n')
	})
}

// plain reports that a name is of printable ASCII, as most are, and needs no cleaning.
func plain(name []byte) bool {
	for _, b := range name {
		if b < ' ' || b > '~' {
			return false
		}
	}
	return true
}

// rows makes a listing: as a table when there is a head, as lines otherwise.
type rows struct {
	head []string
	row  func(client.PoolFile) []string
}

func (a *app) rowsOf(opt client.ListOptions) rows {
	switch {
	case opt.Sum:
		return rows{[]string{"SIZE", "FILES", "PATH"}, func(f client.PoolFile) []string {
			return []string{bytesText(f.Size), fmt.Sprint(max(f.Files, 1)), f.Path}
		}}
	case opt.Long:
		return rows{[]string{"MODE", "COPIES", "SIZE", "MODIFIED", "BY", "NAME"}, func(f client.PoolFile) []string {
			return a.longRow(f, shownName(f, opt))
		}}
	}
	return rows{nil, func(f client.PoolFile) []string { return []string{shownName(f, opt)} }}
}

func (a *app) historyRows() rows {
	return rows{[]string{"VERSION", "WRITTEN", "BY", "SIZE", "STATE"}, func(f client.PoolFile) []string {
		state := f.Kind
		if f.Kind == "file" {
			state = ""
		}
		if f.Current {
			state = strings.TrimSpace("current " + state)
		}
		if f.Conflict {
			state += " conflict"
		}
		size := bytesText(f.Size)
		if f.Kind != "file" {
			size = "-"
		}
		return []string{f.Version, timeText(f.Written), cut(clean(f.Author), nameShown), size, state}
	}}
}

// shownName is a name, or a path where everything below is listed; folders end with /.
func shownName(f client.PoolFile, opt client.ListOptions) string {
	name := path.Base(f.Path)
	if opt.Recursive {
		name = f.Path
	}
	if f.Kind == "folder" && name != "/" {
		name += "/"
	}
	return name
}

func (a *app) longRow(f client.PoolFile, name string) []string {
	mode := fs.FileMode(f.Mode)
	if f.Kind == "folder" {
		return []string{(mode | fs.ModeDir).String(), "-", "-", timeText(f.Modified), cut(clean(f.Author), nameShown), name}
	}
	copies := "?"
	if s := f.Safety; s != nil {
		copies = fmt.Sprintf("%d/%d %s", s.Copies, s.Wanted, s.State)
		if away := s.Copies - s.Online; away > 0 {
			copies += fmt.Sprintf(", %d away", away)
		}
		if s.State == "empty" {
			copies = "-"
		}
	}
	return []string{mode.String(), copies, bytesText(f.Size), timeText(f.Modified), cut(clean(f.Author), nameShown), name}
}

func timeText(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04")
}

// list prints what get yields, as lines while it comes, as a table when all is there.
func (a *app) list(r rows, get func(func(client.PoolFile) error) error) (err error) {
	out := bufio.NewWriterSize(a.out, 64<<10)
	defer flush(out, &err)
	switch {
	case a.json:
		enc := json.NewEncoder(out)
		enc.SetEscapeHTML(false)
		return get(func(f client.PoolFile) error { return enc.Encode(f) })
	case r.head == nil:
		return get(func(f client.PoolFile) error {
			_, err := fmt.Fprintln(out, clean(r.row(f)[0]))
			return err
		})
	}
	all := [][]string{r.head}
	if err := get(func(f client.PoolFile) error { all = append(all, r.row(f)); return nil }); err != nil {
		return err
	}
	if len(all) == 1 {
		return nil
	}
	return table(out, all)
}

// flush writes what is left of a listing, its failure counting only when all else went well.
func flush(out *bufio.Writer, err *error) {
	if flushErr := out.Flush(); *err == nil {
		*err = flushErr
	}
}
