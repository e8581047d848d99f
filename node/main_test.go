package node

import (
	"os"
	"testing"

	"github.com/shoal-os/shoal/tasks/exec"
)

// TestMain lets the test binary be a runner's child.
func TestMain(m *testing.M) {
	exec.Child()
	os.Exit(m.Run())
}
