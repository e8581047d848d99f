package testnet

import (
	"fmt"
	"os"
	"testing"
)

// TestMain is also the program that is started for a slow disk.
func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == DiskCommand {
		if err := RunDisk(os.Args[2], os.Args[3], os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}
