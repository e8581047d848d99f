// Command shoal is a peer and the command line that talks to it.
package main

import (
	"os"

	"github.com/shoal-os/shoal/cli"
)

func main() { os.Exit(cli.Main()) }
