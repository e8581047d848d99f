package host

import (
	"log/slog"

	"github.com/libp2p/go-libp2p/gologshim"
)

// LogTo sends libp2p's own log records to handler, for the whole process: its loggers are global. Left alone, they print
// errors to standard error in a form that is for libp2p's developers, some at every orderly close. A program calls it at
// most once, before the first host starts; a library does not call it. GOLOG_LOG_LEVEL is of no effect afterwards.
func LogTo(handler slog.Handler) { gologshim.SetDefaultHandler(handler) }
