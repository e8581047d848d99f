package testnet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// insideEnv tells this program that it was started again by Inside.
const insideEnv = "SHOAL_TESTNET_INSIDE"

// Inside starts this program again, with the same arguments, as the first process of a process namespace with mounts of its own
// (and, without root, in a user namespace, which is what lets a user make networks where the system allows it). Whatever
// ends that process, the kernel then ends every peer and takes every device, namespace and mount away.
//
// ok is false, with the reason, where that cannot be had, or need not be because this is such a process: then the caller runs the
// scenario itself. Otherwise code is the other process's exit code.
func Inside(ctx context.Context) (code int, ok bool, why error) {
	if os.Getenv(insideEnv) != "" {
		return 0, false, arrive()
	}
	if os.Getpid() == 1 {
		return 0, false, nil // a container's first process is that already
	}
	exe, err := os.Executable()
	if err != nil {
		return 0, false, err
	}
	cmd := exec.Command(exe, os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), insideEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	s := newStarter()
	defer s.close()
	if err := s.start(cmd); err != nil {
		return 0, false, err
	}
	// A terminal sends its signals to both; what is sent to this process alone goes on to the other.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case sig := <-signals:
			_ = cmd.Process.Signal(sig)
		case <-ctx.Done(): // a signal too, which the caller has seen
			_ = cmd.Process.Signal(syscall.SIGTERM)
			err = <-ended
			return codeOf(err), true, nil
		case err = <-ended:
			return codeOf(err), true, nil
		}
	}
}

func codeOf(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit) && exit.ExitCode() >= 0:
		return exit.ExitCode()
	}
	return 1
}

// arrive makes the mounts of this process its own and shows it its own processes.
func arrive() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("private mounts: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	return nil
}
