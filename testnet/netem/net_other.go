//go:build !linux

package netem

import (
	"fmt"
	"net/netip"
	"os/exec"
	"runtime"
)

// Net exists on Linux only; elsewhere New always fails.
type Net struct{}

// Host is one host of a Net.
type Host struct{}

// Supported returns an error that wraps ErrUnsupported.
func Supported() error {
	return fmt.Errorf("%w: it needs Linux, and this is %s", ErrUnsupported, runtime.GOOS)
}

// New fails, unless the Config is wrong as well.
func New(c Config) (*Net, error) {
	if _, err := c.complete(); err != nil {
		return nil, err
	}
	return nil, Supported()
}

// The methods below are never reached: there is no Net.

func (*Net) Close() error                         { return Supported() }
func (*Net) Host(int) *Host                       { return nil }
func (*Net) Set(int, int, Link) error             { return Supported() }
func (*Net) SetOneWay(int, int, Link) error       { return Supported() }
func (*Net) SetAll(Link) error                    { return Supported() }
func (*Net) Partition(...[]int)                   {}
func (*Net) Heal()                                {}
func (*Net) Stats(int, int) Stats                 { return Stats{} }
func (*Host) Addr() netip.Addr                    { return netip.Addr{} }
func (*Host) Command(string, ...string) *exec.Cmd { return nil }
func (*Host) Start(*exec.Cmd) error               { return Supported() }
func (*Host) Do(func() error) error               { return Supported() }
