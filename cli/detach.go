package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/shoal-os/shoal/node"
	"github.com/shoal-os/shoal/node/api/client"
	"github.com/spf13/pflag"
)

const (
	logFile       = "peer.log"
	logBytesMax   = 4 << 20 // a longer log is set aside as peer.log.1 at the next start
	logTailMax    = 16 << 10
	detachTimeout = 60 * time.Second
)

// detach starts this program again as a peer in the background and returns
// once it answers at its API, or says why it does not.
func (a *app) detach(ctx context.Context, flags *pflag.FlagSet) error {
	if c, err := a.dial(ctx); err == nil {
		c.Close()
		// Said here, it does not end up in the log of the peer that runs.
		if err := node.CheckFree(a.home); err != nil {
			return err
		}
	}
	if err := node.MakeHome(a.home); err != nil {
		return err
	}
	log, err := openLog(a.home)
	if err != nil {
		return fmt.Errorf("log: %w", err)
	}
	defer log.Close()
	begin, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Errorf("log: %w", err)
	}
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("detach: %w", err)
	}
	child := exec.Command(exe, a.childArgs(flags)...)
	child.Stdout, child.Stderr = log, log
	child.SysProcAttr = detached()
	if err := child.Start(); err != nil {
		return fmt.Errorf("detach: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- child.Wait() }()
	status, err := a.awaitUp(ctx, child.Process.Pid, ended)
	switch err {
	case nil:
		return a.printUp(status)
	case errChildEnded:
		return a.childFailure(log, begin, <-ended)
	default:
		_ = child.Process.Kill() // ours, started a moment ago
		return err
	}
}

// childArgs are the flags that this command was given, for the child. What
// came from the environment or the file, the child reads again.
func (a *app) childArgs(flags *pflag.FlagSet) []string {
	args := []string{"up", "--home=" + a.home, "--detach=false", "--json=false"}
	flags.VisitAll(func(f *pflag.Flag) {
		if !a.given[f.Name] || f.Name == "home" || f.Name == "detach" || f.Name == "json" {
			return
		}
		if list, ok := f.Value.(pflag.SliceValue); ok {
			for _, v := range list.GetSlice() {
				args = append(args, "--"+f.Name+"="+v)
			}
			return
		}
		args = append(args, "--"+f.Name+"="+f.Value.String())
	})
	return args
}

// errChildEnded says that the peer ended before it answered.
var errChildEnded = fmt.Errorf("the peer ended")

// awaitUp waits until the process answers at the home's API.
func (a *app) awaitUp(ctx context.Context, pid int, ended chan error) (client.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, detachTimeout)
	defer cancel()
	for {
		c, err := client.Open(a.home)
		if err == nil && c.Endpoint().PID == pid {
			status, err := c.Status(ctx)
			c.Close()
			if err == nil {
				return status, nil
			}
		}
		select {
		case err := <-ended:
			ended <- err
			return client.Status{}, errChildEnded
		default:
		}
		if err := pause(ctx, startInterval); err != nil {
			return client.Status{}, fmt.Errorf("detach: the peer did not answer: %w", err)
		}
	}
}

// childFailure words the failure that the child wrote to the log.
func (a *app) childFailure(log *os.File, begin int64, exit error) error {
	data, _ := io.ReadAll(io.NewSectionReader(log, begin, logTailMax))
	failed := &client.Error{Kind: client.KindInternal, Text: fmt.Sprintf("the peer ended: %v", exit), Hint: "see " + log.Name()}
	for line := range strings.Lines(string(data)) {
		if text, ok := strings.CutPrefix(line, "shoal: "); ok {
			failed.Text, failed.Hint = strings.TrimSpace(text), ""
		}
		if text, ok := strings.CutPrefix(line, "hint: "); ok {
			failed.Hint = strings.TrimSpace(text)
		}
	}
	a.printError(failed)
	code := exitFailure
	if e, ok := exit.(*exec.ExitError); ok && e.ExitCode() > 0 {
		code = e.ExitCode()
	}
	return silent{code}
}

// openLog opens the log for appending, setting an old long one aside. It is
// also read, from where this run begins.
func openLog(home string) (*os.File, error) {
	path := filepath.Join(home, logFile)
	if info, err := os.Stat(path); err == nil && info.Size() > logBytesMax {
		if err := os.Rename(path, path+".1"); err != nil {
			return nil, err
		}
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	_, err = f.Write(bytes.TrimLeft([]byte(time.Now().Format("\n# 2006-01-02 15:04:05 up --detach\n")), "\n"))
	return f, err
}
