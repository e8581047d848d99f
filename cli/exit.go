package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	"github.com/shoal-os/shoal/node/api/client"
	"github.com/spf13/cobra"
)

// Exit codes. exitHelp is their documentation, exitCode the one place where
// errors become codes.
const (
	exitOK         = 0
	exitFailure    = 1
	exitUsage      = 2
	exitNoPeer     = 3
	exitNotFound   = 4
	exitExists     = 5
	exitFileSystem = 6
	exitCorrupt    = 7
	exitBusy       = 8
	exitHome       = 9
	exitRefused    = 10
	exitSignal     = 128 // plus the signal's number
)

const exitHelp = `Exit codes:
  0  done
  1  failed in a way that has no code of its own
  2  the command line, the settings or the link make no sense
  3  no peer is running, and the command needs one
  4  not found: no such path or share, or nobody provided the link in time
  5  the destination exists and is something else (see get --force)
  6  the file system said no: disk full, no permission, read-only
  7  what the link names is malformed and cannot be a file or folder
  8  another peer runs on this home
  9  the home is damaged
 10  refused: by the pool, by another member, by one's role, or by the person asked
130  interrupted (128 plus the signal's number)
shoal run exits with its program's code, and with 125 when shoal could not run it.`

// exitCode is the one place where errors become exit codes.
func exitCode(err error) int {
	var sig interrupted
	var quiet silent
	var own *coded
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &own):
		return own.code
	case errors.As(err, &quiet):
		return quiet.code
	case errors.As(err, &sig):
		if n, ok := sig.sig.(syscall.Signal); ok {
			return exitSignal + int(n)
		}
		return exitSignal
	}
	switch client.KindOf(err) {
	case client.KindInvalid:
		return exitUsage
	case client.KindNoPeer:
		return exitNoPeer
	case client.KindNotFound, client.KindMissing:
		return exitNotFound
	case client.KindExists:
		return exitExists
	case client.KindNoSpace, client.KindPermission:
		return exitFileSystem
	case client.KindCorrupt:
		return exitCorrupt
	case client.KindBusy:
		return exitBusy
	case client.KindHome:
		return exitHome
	case client.KindRefused:
		return exitRefused
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return exitNotFound
	case errors.Is(err, fs.ErrPermission):
		return exitFileSystem
	}
	return exitFailure
}

// silent ends the program with a code after everything has been said.
type silent struct{ code int }

func (silent) Error() string { return "" }

// usagef is a mistake in how the program was called.
func usagef(hint, format string, args ...any) error {
	return client.Errorf(client.KindInvalid, hint, format, args...)
}

func isCanceled(err error) bool { return errors.Is(err, context.Canceled) }

// flagError words a flag that does not parse.
func flagError(cmd *cobra.Command, err error) error {
	hint := fmt.Sprintf("see `%s --help`", cmd.CommandPath())
	switch cmd.Name() {
	case "share":
		hint += "; a path that begins with - is written ./-…"
	case "get":
		hint += "; a link begins with shoal: and a CID with b, neither with -"
	}
	return usagef(hint, "%s", clean(strings.ToLower(err.Error()[:1])+err.Error()[1:]))
}

// argsRange checks the number of arguments; a negative most is no limit.
func argsRange(least, most int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		hint := fmt.Sprintf("usage: %s", cmd.UseLine())
		switch {
		case len(args) < least:
			return usagef(hint, "%s is missing", what)
		case most == 0 && len(args) > 0:
			return usagef(hint, "%s takes no arguments, but was given %q", cmd.CommandPath(), clean(args[0]))
		case most >= 0 && len(args) > most:
			return usagef(hint, "one %s at a time: %q is too much", what, clean(args[most]))
		}
		return nil
	}
}

func (a *app) printError(err error) {
	var quiet silent
	if errors.As(err, &quiet) {
		return
	}
	fmt.Fprintf(a.err, "%s %s\n", a.paint(red, "shoal:"), cleanLine(err.Error()))
	var e *client.Error
	if errors.As(err, &e) && e.Hint != "" {
		fmt.Fprintf(a.err, "%s %s\n", a.paint(yellow, "hint:"), cleanLine(e.Hint))
	}
}
