package exec

import (
	"fmt"
	"os"
	"testing"
)

// TestMain lets the test binary be a runner's child.
func TestMain(m *testing.M) {
	Child()
	forbidNamespaces()
	if dir := os.Getenv(role); dir != "" {
		fmt.Fprintln(os.Stderr, peer(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}
