package netem

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	deviceName = "net0"
	// txQueue is the device's queue in packets: long, so that what is lost is lost by the line and not here.
	txQueue = 10000
	// tcpSetting is the setting of the namespace that whoever opens it is in.
	tcpSetting = "/proc/sys/net/ipv4/tcp_congestion_control"
)

// namespace is a network namespace with loopback and one TUN device. It lives as long as space is open or a
// process is inside.
type namespace struct {
	space  *os.File
	device *os.File
	once   sync.Once
}

// onOwnThread runs f on a thread that ends with it: a thread that has changed its namespace must never run anything else.
func onOwnThread(f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == os.Getpid() {
			// The first thread never ends, and its namespace is what the kernel shows as the whole process's: hold it
			// here while another thread does the work.
			result <- onOwnThread(f)
			runtime.UnlockOSThread()
			return
		}
		result <- f() // still locked when the goroutine ends, so the runtime ends the thread too
	}()
	return <-result
}

// newNamespace makes one with an address of a subnet, and a route to more if that is valid.
func newNamespace(subnet, more netip.Prefix, addr netip.Addr, mtu int, tcp string) (n *namespace, err error) {
	err = onOwnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		space, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			return err
		}
		if tcp != "" {
			if err := os.WriteFile(tcpSetting, []byte(tcp), 0); err != nil {
				space.Close()
				return fmt.Errorf("congestion control %s: %w", tcp, err)
			}
		}
		device, err := openDevice()
		if err == nil {
			if err = configure(subnet, addr, mtu); err == nil && more.IsValid() {
				err = addRoute(more)
			}
			if err != nil {
				device.Close()
			}
		}
		if err != nil {
			space.Close()
			return err
		}
		n = &namespace{space: space, device: device}
		return nil
	})
	return n, err
}

func (n *namespace) close() {
	n.once.Do(func() {
		n.device.Close()
		n.space.Close()
	})
}

func (n *namespace) path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.space.Fd()) }

func (n *namespace) do(f func() error) error {
	return onOwnThread(func() error {
		if err := n.enter(); err != nil {
			return err
		}
		return f()
	})
}

// enter moves the calling thread into the namespace. It must be one that runs nothing else.
func (n *namespace) enter() error {
	if err := unix.Setns(int(n.space.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("netem: enter namespace: %w", err)
	}
	return nil
}

// openDevice makes the TUN device in the namespace of the calling thread.
func openDevice() (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	req, err := unix.NewIfreq(deviceName)
	if err == nil {
		req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("make a TUN device: %w", err)
	}
	// Not blocking, and only now a file: the runtime's poller refuses a TUN that is not attached yet.
	return os.NewFile(uintptr(fd), deviceName), nil
}

// configure brings up loopback and the device in the namespace of the calling thread. The route to the subnet comes with
// the address; there is no other.
func configure(subnet netip.Prefix, addr netip.Addr, mtu int) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	defer unix.Close(fd)
	mask := net.CIDRMask(subnet.Bits(), 32)
	return errors.Join(
		up(fd, "lo"),
		change(fd, deviceName, unix.SIOCSIFADDR, func(r *unix.Ifreq) error { return r.SetInet4Addr(addr.AsSlice()) }),
		change(fd, deviceName, unix.SIOCSIFNETMASK, func(r *unix.Ifreq) error { return r.SetInet4Addr(mask) }),
		change(fd, deviceName, unix.SIOCSIFMTU, func(r *unix.Ifreq) error { r.SetUint32(uint32(mtu)); return nil }),
		change(fd, deviceName, unix.SIOCSIFTXQLEN, func(r *unix.Ifreq) error { r.SetUint32(txQueue); return nil }),
		up(fd, deviceName),
	)
}

func up(fd int, name string) error {
	return change(fd, name, unix.SIOCSIFFLAGS, func(r *unix.Ifreq) error {
		if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, r); err != nil {
			return err
		}
		r.SetUint16(r.Uint16() | unix.IFF_UP)
		return nil
	})
}

func change(fd int, name string, request uint, set func(*unix.Ifreq) error) error {
	r, err := unix.NewIfreq(name)
	if err == nil {
		err = set(r)
	}
	if err == nil {
		err = unix.IoctlIfreq(fd, request, r)
	}
	if err != nil {
		return fmt.Errorf("configure %s (request %#x): %w", name, request, err)
	}
	return nil
}

// sleepExactly blocks the thread, which the kernel wakes within some tens of microseconds.
func sleepExactly(d time.Duration) {
	ts := unix.NsecToTimespec(d.Nanoseconds())
	_ = unix.Nanosleep(&ts, nil)
}
