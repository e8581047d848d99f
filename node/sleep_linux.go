package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
)

// logind as org.freedesktop.login1(5) and https://systemd.io/INHIBITOR_LOCKS/ describe it; elogind has the same.
const (
	systemBus     = "unix:path=/run/dbus/system_bus_socket"
	systemBusName = "DBUS_SYSTEM_BUS_ADDRESS" // the variable that names another one

	busName         = "org.freedesktop.DBus"
	busOwnerChanged = busName + ".NameOwnerChanged"
	loginName       = "org.freedesktop.login1"
	loginManager    = loginName + ".Manager"
	loginPath       = dbus.ObjectPath("/org/freedesktop/login1")
	loginSleep      = loginManager + ".PrepareForSleep"

	// busWait bounds the opening of a connection, and each call.
	busWait = 10 * time.Second
	// signalsWait is how many signals wait to be looked at before the connection queues them itself.
	signalsWait = 8
)

// logind is a lid that systemd-logind tells of, on one connection to the system bus.
type logind struct {
	bus     *dbus.Conn
	cancel  context.CancelFunc
	owner   string // logind's name on this bus: nobody else's signals count, as anybody may send one
	signals chan *dbus.Signal
}

// openLid connects to a bus, "" for the system's, and asks for logind there. It does not start logind.
func openLid(ctx context.Context, address string) (lid, error) {
	address = cmp.Or(address, os.Getenv(systemBusName), systemBus)
	if !strings.HasPrefix(address, "unix:") {
		return nil, errors.New("logind: a lock is an open file, which only a bus on a Unix socket hands over")
	}
	ctx, cancel := context.WithCancel(ctx) // its end closes the connection
	late := time.AfterFunc(busWait, cancel)
	defer late.Stop()
	l := &logind{cancel: cancel, signals: make(chan *dbus.Signal, signalsWait)}
	if err := l.connect(ctx, address); err != nil {
		l.close()
		return nil, fmt.Errorf("logind: %w", err)
	}
	return l, nil
}

func (l *logind) connect(ctx context.Context, address string) (err error) {
	if l.bus, err = dbus.Connect(address, dbus.WithContext(ctx), dbus.WithSignalHandler(dbus.NewSequentialSignalHandler())); err != nil {
		return err
	}
	l.bus.Signal(l.signals)
	if err := l.bus.AddMatchSignalContext(ctx, dbus.WithMatchSender(busName), dbus.WithMatchInterface(busName),
		dbus.WithMatchMember("NameOwnerChanged"), dbus.WithMatchArg(0, loginName)); err != nil {
		return err
	}
	if err := l.bus.AddMatchSignalContext(ctx, dbus.WithMatchSender(loginName), dbus.WithMatchObjectPath(loginPath),
		dbus.WithMatchInterface(loginManager), dbus.WithMatchMember("PrepareForSleep")); err != nil {
		return err
	}
	return l.bus.BusObject().CallWithContext(ctx, busName+".GetNameOwner", 0, loginName).Store(&l.owner)
}

func (l *logind) next(ctx context.Context) (asleep bool, err error) {
	for {
		select {
		case s, ok := <-l.signals:
			switch {
			case !ok:
				return false, errors.New("logind: the bus hung up")
			case s.Sender == busName && s.Name == busOwnerChanged:
				return false, errors.New("logind: it ended")
			case s.Sender == l.owner && s.Name == loginSleep && len(s.Body) == 1:
				if asleep, ok := s.Body[0].(bool); ok {
					return asleep, nil
				}
			}
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
}

// hold takes the lock. logind refuses it to whom polkit does, and while it is putting the machine to sleep.
func (l *logind) hold(ctx context.Context) (io.Closer, error) {
	ctx, cancel := context.WithTimeout(ctx, busWait)
	defer cancel()
	var fd dbus.UnixFD
	err := l.bus.Object(l.owner, loginPath).CallWithContext(ctx, loginManager+".Inhibit", 0,
		"sleep", "shoal", "other machines take over what runs here", "delay").Store(&fd)
	if err != nil {
		return nil, fmt.Errorf("logind: lock: %w", err)
	}
	return os.NewFile(uintptr(fd), "sleep lock"), nil
}

func (l *logind) close() {
	l.cancel()
	if l.bus != nil {
		_ = l.bus.Close()
	}
}
