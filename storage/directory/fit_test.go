package directory

import "github.com/shoal-os/shoal/dht/pool"

// The pool and the directory know each other by interfaces only; that they fit is held here.
var (
	_ Members      = (*pool.Pool)(nil)
	_ Streams      = (*pool.Pool)(nil)
	_ pool.Records = Values{}
)
