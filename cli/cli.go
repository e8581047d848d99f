// Package cli is the command line: a file per command, and what they share.
//
// A command turns flags into a request to the peer on a home, and the answer
// into text. It decides nothing about files or peers itself. Where no peer is
// running, commands that need one start it in this process and then talk to it
// through the same client, so there is one way through the code.
//
// Answers go to stdout and everything else to stderr. Every string that comes
// from another peer passes a cleaner before it reaches the screen.
package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// app is what the commands share: the streams, the terminal, the home.
type app struct {
	in       io.Reader
	out      io.Writer
	err      io.Writer
	lines    *bufio.Reader // of in, once something was read from it
	terminal bool          // stderr is one: draw bars
	screen   bool          // stdin and stdout are one: draw full-screen views
	color    bool
	env      func(string) (string, bool)
	home     string // absolute once settings are applied
	peer     string // the member that the command is sent to; empty is the local peer
	json     bool
	given    map[string]bool // flags on the command line itself, by name
}

// interrupted is the cause of a context that a signal ended.
type interrupted struct{ sig os.Signal }

func (e interrupted) Error() string { return "interrupted" }

// Main runs the command line of this process and returns its exit code.
func Main() int {
	ctx, stop := withSignals(context.Background())
	defer stop()
	_, noColor := os.LookupEnv("NO_COLOR")
	terminal := term.IsTerminal(int(os.Stderr.Fd())) && os.Getenv("TERM") != "dumb"
	screen := term.IsTerminal(int(os.Stdout.Fd())) && term.IsTerminal(int(os.Stdin.Fd())) && os.Getenv("TERM") != "dumb"
	a := &app{
		screen: screen,
		in:     os.Stdin, out: os.Stdout, err: os.Stderr,
		terminal: terminal, color: terminal && !noColor,
		env: os.LookupEnv,
	}
	return a.run(ctx, os.Args[1:])
}

// withSignals returns a context that the first SIGINT or SIGTERM cancels. The
// second one kills the process, should the clean end hang.
func withSignals(parent context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		select {
		case sig := <-signals:
			signal.Stop(signals)
			cancel(interrupted{sig})
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil) }
}

func (a *app) run(ctx context.Context, args []string) int {
	root := newRoot(a)
	root.SetArgs(withDash(root, args))
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	if cause, ok := context.Cause(ctx).(interrupted); ok && isCanceled(err) {
		err = cause
	}
	a.printError(err)
	return exitCode(err)
}

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "shoal",
		Short: "Share files between peers, and make many machines one, with no server in between",
		Long: "shoal shares files and folders from peer to peer: `shoal share DIR` prints a link,\n" +
			"`shoal get LINK` fetches it from everyone who has it, every byte verified. Peers that trust\n" +
			"each other form a pool: `shoal invite` on one prints a ticket, `shoal join TICKET` on another\n" +
			"takes it up, and `shoal peers`, `df` and `top` show them as one machine. `shoal put DIR /DIR`\n" +
			"keeps files on several of them at once, and `ls`, `cat` and `get` read them on any.\n\n" +
			settingsHelp + "\n\n" + exitHelp,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return unknownCommand(cmd, args[0])
		},
		RunE:                       func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE:          func(cmd *cobra.Command, _ []string) error { return a.applySettings(cmd) },
		SuggestionsMinimumDistance: 2,
		CompletionOptions:          cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.SetFlagErrorFunc(flagError)
	root.PersistentFlags().StringVar(&a.home, "home", "", "the peer's folder; two homes are two peers (default ~/.shoal)")
	root.PersistentFlags().StringVar(&a.peer, "peer", "", "send the command to another member of the pool: a name, its beginning, or a peer id")
	root.PersistentFlags().BoolVar(&a.json, "json", false, "print JSON")
	root.AddCommand(
		newUp(a), remote(newDown(a)), remote(newStatus(a)), remote(newID(a)),
		newShare(a), newGet(a), remote(newCat(a)), newServe(a), remote(newShares(a)), remote(newUnshare(a)),
		remote(newInvite(a)), newJoin(a), newLeave(a), remote(newEvict(a)), remote(newPromote(a)),
		newPut(a), remote(newLs(a)), remote(newFind(a)), remote(newDu(a)), remote(newHistory(a)), remote(newMkdir(a)), remote(newMv(a)), remote(newCp(a)),
		remote(newRm(a)), remote(newRestore(a)), remote(newPurge(a)), remote(newPin(a)), remote(newUnpin(a)), remote(newWhatIf(a)), remote(newScrub(a)), remote(newGC(a)), newMount(a),
		remote(newPeers(a)), remote(newDf(a)), remote(newTop(a)),
		newRun(a), newMap(a), remote(newPs(a)), remote(newLogs(a)), remote(newWait(a)), remote(newResult(a)), remote(newKill(a)), remote(newWhy(a)), newMine(a),
		remote(newDoctor(a)), newDrill(a), newTestnet(a), newTestnetEnemy(a), newTestnetDisk(a), newVersion(a), newCompletion(a),
	)
	for _, c := range root.Commands() {
		c.ValidArgsFunction = orNoFiles(c.ValidArgsFunction)
	}
	return root
}

func orNoFiles(f cobra.CompletionFunc) cobra.CompletionFunc {
	if f != nil {
		return f
	}
	return cobra.NoFileCompletions
}

func unknownCommand(cmd *cobra.Command, name string) error {
	hint := "see `shoal --help`"
	if near := cmd.SuggestionsFor(name); len(near) > 0 {
		hint = fmt.Sprintf("did you mean `shoal %s`?", near[0])
	}
	return usagef(hint, "there is no command %q", clean(name))
}
