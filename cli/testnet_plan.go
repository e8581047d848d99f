package cli

import (
	"fmt"

	"github.com/shoal-os/shoal/testnet"
	"github.com/shoal-os/shoal/testnet/script"
)

// printPlan prints what a run would do, a line for each thing, those of a block with their times.
func (a *app) printPlan(p script.Plan) error {
	if a.json {
		return a.printJSON(p)
	}
	fmt.Fprintf(a.out, "# %s with %d peers, seed %d\n", p.Name, p.Peers, p.Seed)
	for _, s := range p.Stages {
		if !s.Block {
			fmt.Fprintln(a.out, testnet.Describe(s.Actions[0]))
			continue
		}
		fmt.Fprintln(a.out, s.Text)
		for _, action := range s.Actions {
			fmt.Fprintf(a.out, "%9.3fs  %s\n", action.When.Seconds(), testnet.Describe(action))
		}
	}
	return nil
}
