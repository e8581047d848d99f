package ident

import (
	"fmt"

	"github.com/shoal-os/shoal/dht/canon"
)

// decoder reads the signed records, which have one encoding each.
type decoder struct{ canon.Decoder }

// failf notes an error unless there is one already.
func (d *decoder) failf(format string, args ...any) { d.Fail(fmt.Errorf(format, args...)) }
