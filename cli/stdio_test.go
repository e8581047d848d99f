package cli

import (
	"errors"
	"io"
	"testing"

	"github.com/shoal-os/shoal/node/api/client"
)

// full is where nothing can be written to.
type full struct{ err error }

func (f full) Write([]byte) (int, error) { return 0, f.err }

// TestListingsThatCannotBeWritten: a listing of which the end was not written is no success.
func TestListingsThatCannotBeWritten(t *testing.T) {
	noRoom := errors.New("no room")
	get := func(each func(client.PoolFile) error) error { return each(client.PoolFile{Path: "/x", Kind: "file"}) }
	for _, json := range []bool{false, true} {
		for _, opt := range []client.ListOptions{{Long: true}, {Pattern: "x"}} {
			a := &app{out: full{noRoom}, err: io.Discard, json: json}
			if err := a.list(a.rowsOf(opt), get); !errors.Is(err, noRoom) {
				t.Errorf("json %v, %+v: %v", json, opt, err)
			}
		}
	}
	a := &app{out: full{noRoom}, err: io.Discard}
	if err := a.printShares([]client.Share{{Link: "shoal:x"}}, true); !errors.Is(err, noRoom) {
		t.Errorf("links: %v", err)
	}
}
