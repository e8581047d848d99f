// Package tasks joins the market to a peer: it is the shell of tasks/market. It keeps this peer's seats in the groups of jobs
// (a seat holds the job's ledger and, while this peer leads, grants its leases), runs tasks for whichever job of the pool bids for
// this peer's cores, and speaks for whoever uses this peer: submits jobs, watches them, brings results and logs, from any member
// whether it is a steward or not.
//
// It moves messages over /shoal/market/1 and /shoal/log/1 (tasks/talk has their schema and bounds), keeps the bytes of jobs as
// pieces of the pool, and lists those in directory records (tasks/keep), so that neither repair nor collection forgets them.
//
// The package decides nothing about who runs what: that is market's. It refuses to run a guest in this process: that is exec's.
package tasks
