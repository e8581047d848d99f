package api

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"

	"github.com/shoal-os/shoal/node/api/client"
)

const (
	socketFile = "api.sock"
	// socketPathMax is the longest path that every system takes for a socket:
	// macOS has 104 bytes with the final zero.
	socketPathMax = 103
)

// Network says where the API listens.
type Network string

// The networks. NetworkDefault is a Unix socket, except on Windows.
const (
	NetworkDefault Network = ""
	NetworkUnix    Network = "unix"
	NetworkTCP     Network = "tcp"
)

// door is an open listener with what has to be removed when it closes.
type door struct {
	net.Listener
	endpoint client.Endpoint
	remove   []string // files and then folders
}

// unlist removes what leads others to the listener, which stays open.
func (d *door) unlist() {
	for _, path := range d.remove {
		os.Remove(path)
	}
}

func (d *door) close() error {
	d.unlist()
	if err := d.Listener.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

func openDoor(home string, network Network) (*door, error) {
	if network == NetworkDefault {
		network = NetworkUnix
		if runtime.GOOS == "windows" {
			network = NetworkTCP
		}
	}
	switch network {
	case NetworkUnix:
		return openSocket(home)
	case NetworkTCP:
		return openTCP()
	default:
		return nil, client.Errorf(client.KindInvalid, "use unix or tcp", "api: unknown network %q", string(network))
	}
}

// openSocket listens on home/api.sock, or in a fresh private folder where that
// path is too long for a socket.
func openSocket(home string) (*door, error) {
	path := filepath.Join(home, socketFile)
	if len(path)+len(".bind-1234567890") > socketPathMax {
		return openSocketElsewhere()
	}
	// A socket's mode is set after it exists. So it is born in a folder that
	// only the owner can enter, and moved once its mode is right; the move
	// also replaces what a crash left behind.
	nursery, err := os.MkdirTemp(home, ".bind-")
	if err != nil {
		return nil, fmt.Errorf("api: %w", err)
	}
	defer os.RemoveAll(nursery)
	l, err := bindSocket(filepath.Join(nursery, "s"))
	if err != nil {
		return nil, err
	}
	if err := os.Rename(filepath.Join(nursery, "s"), path); err != nil {
		l.Close()
		return nil, fmt.Errorf("api: %w", err)
	}
	return &door{
		Listener: l,
		endpoint: client.Endpoint{Network: "unix", Address: path, PID: os.Getpid()},
		remove:   []string{path},
	}, nil
}

func openSocketElsewhere() (*door, error) {
	dir, err := os.MkdirTemp("", "shoal-") // 0700
	if err != nil {
		return nil, fmt.Errorf("api: %w", err)
	}
	path := filepath.Join(dir, socketFile)
	l, err := bindSocket(path)
	if err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	return &door{
		Listener: l,
		endpoint: client.Endpoint{Network: "unix", Address: path, PID: os.Getpid()},
		remove:   []string{path, dir},
	}, nil
}

func bindSocket(path string) (*net.UnixListener, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("api: %w", err)
	}
	l.SetUnlinkOnClose(false) // it will have another name by then
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("api: %w", err)
	}
	return l, nil
}

// openTCP listens on a loopback port that the system chooses, behind a token.
func openTCP() (*door, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("api: %w", err)
	}
	return &door{
		Listener: l,
		endpoint: client.Endpoint{Network: "tcp", Address: l.Addr().String(), Token: rand.Text(), PID: os.Getpid()},
	}, nil
}
