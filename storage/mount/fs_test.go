package mount_test

import (
	"testing"

	"github.com/shoal-os/shoal/storage/mount/mounttest"
)

func TestFS(t *testing.T) {
	for name, open := range systems() {
		t.Run(name, func(t *testing.T) { mounttest.Run(t, open) })
	}
}
