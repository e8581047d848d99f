package testnet

import "os"

func suspend(*os.Process) error   { return skipped{"Windows cannot suspend a process"} }
func unsuspend(*os.Process) error { return skipped{"Windows cannot suspend a process"} }

// stop is told through the API before; there are no signals.
func stop(*os.Process) error { return nil }
