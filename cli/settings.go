package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/shoal-os/shoal/node/api/client"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const (
	configFile     = "config"
	configBytesMax = 64 << 10
	envPrefix      = "SHOAL_"
)

const settingsHelp = `Settings: every flag has an environment variable and a key in the file config in
the home: --listen is SHOAL_LISTEN and "listen = …", --lan=false is SHOAL_LAN=false
and "lan = false". A flag wins over the environment, that over the file. Lists are
separated by commas. The home itself is --home or SHOAL_HOME; it is ~/.shoal if
neither is given.`

// applySettings completes a command's flags from the environment and from the
// file config in the home. It is the one place of that precedence.
func (a *app) applySettings(cmd *cobra.Command) error {
	a.given = map[string]bool{}
	cmd.Flags().Visit(func(f *pflag.Flag) { a.given[f.Name] = true })
	if err := a.resolveHome(); err != nil {
		return err
	}
	if cmd.Name() == "version" || cmd.Name() == "completion" {
		return nil // these must work whatever the home looks like
	}
	file, err := readConfig(filepath.Join(a.home, configFile))
	if err != nil {
		return err
	}
	known := flagNames(cmd.Root())
	for _, entry := range file {
		if !slices.Contains(known, entry.key) {
			return client.Errorf(client.KindInvalid, "keys are named like flags: "+strings.Join(known, ", "),
				"%s: unknown key %q", entry.where, clean(entry.key))
		}
	}
	var failed error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if failed == nil && !a.given[f.Name] && isSetting(f) {
			failed = a.complete(f, file)
		}
	})
	if failed != nil {
		return failed
	}
	return a.checkPeer(cmd)
}

// complete sets one flag from the environment or else from the file.
func (a *app) complete(f *pflag.Flag, file []entry) error {
	name := envName(f.Name)
	if value, ok := a.env(name); ok && value != "" {
		return setFlag(f, value, name)
	}
	for _, e := range file {
		if e.key == f.Name {
			if err := setFlag(f, e.value, e.where); err != nil {
				return err
			}
		}
	}
	return nil
}

func setFlag(f *pflag.Flag, value, where string) error {
	if err := f.Value.Set(value); err != nil {
		return usagef("it is the same setting as --"+f.Name+": "+f.Usage,
			"%s: %q is not a valid value for %s", where, clean(value), f.Name)
	}
	return nil
}

// isSetting excludes the flags that make no sense as a standing setting.
func isSetting(f *pflag.Flag) bool {
	return f.Name != "home" && f.Name != "help" && f.Annotations[ownKey] == nil
}

func envName(flag string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// flagNames lists the settings of all commands, sorted: a file may hold keys
// for a command other than the one that runs.
func flagNames(root *cobra.Command) []string {
	var names []string
	add := func(f *pflag.Flag) {
		if isSetting(f) && !slices.Contains(names, f.Name) {
			names = append(names, f.Name)
		}
	}
	root.PersistentFlags().VisitAll(add)
	for _, c := range root.Commands() {
		c.Flags().VisitAll(add)
	}
	slices.Sort(names)
	return names
}

// resolveHome makes a.home an absolute path.
func (a *app) resolveHome() error {
	if a.home == "" {
		a.home, _ = a.env(envPrefix + "HOME")
	}
	if a.home == "" {
		user, err := os.UserHomeDir()
		if err != nil {
			return usagef("give one with --home or SHOAL_HOME", "no home: %v", err)
		}
		a.home = filepath.Join(user, ".shoal")
	}
	home, err := filepath.Abs(a.home)
	if err != nil {
		return fmt.Errorf("home: %w", err)
	}
	a.home = home
	return nil
}

// entry is one line of the file.
type entry struct{ key, value, where string }

// readConfig reads lines of the form `key = value`. Blank lines and lines that
// begin with # are skipped; a value may stand in double quotes, with Go's
// escapes. A key may be there once.
func readConfig(path string) ([]entry, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) || isNotDir(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	defer f.Close()
	var entries []entry
	lines := bufio.NewScanner(io.LimitReader(f, configBytesMax))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		where := fmt.Sprintf("%s line %d", path, n)
		key, value, ok := strings.Cut(line, "=")
		if !ok {
			return nil, usagef("write key = value", "%s: %q has no =", where, clean(line))
		}
		e := entry{strings.TrimSpace(key), strings.TrimSpace(value), where}
		if strings.HasPrefix(e.value, `"`) {
			if e.value, err = strconv.Unquote(e.value); err != nil {
				return nil, usagef(`write "value", with \" for a quote inside`, "%s: the quotes do not match", where)
			}
		}
		if slices.ContainsFunc(entries, func(o entry) bool { return o.key == e.key }) {
			return nil, usagef("lists are written in one line, separated by commas", "%s: %s is there twice", where, clean(e.key))
		}
		entries = append(entries, e)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("config: %s: %w", path, err)
	}
	return entries, nil
}

// isNotDir says whether the home itself is no folder: not the file's problem.
func isNotDir(err error) bool {
	var p *fs.PathError
	return errors.As(err, &p) && p.Err.Error() == "not a directory"
}
