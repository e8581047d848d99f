// Command shoal is a peer and the command line that talks to it.
package main

import (
	"os"

	"github.com/shoal-os/shoal/cli"
	"github.com/shoal-os/shoal/tasks/exec"
)

func main() {
	exec.Child() // does not return in a process that a peer started to run a guest
	os.Exit(cli.Main())
}
