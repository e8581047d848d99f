package exec

// Bounds of what a peer and its child say to each other.
const (
	orderMax  = 16 << 20  // bytes of an order; a task's arguments are most of it
	reportMax = 128 << 10 // bytes of a report
	outMax    = 64 << 10  // bytes of output in one report
	reasonMax = 2 << 10   // bytes of a reason
	lacksMax  = 32        // sentences about what cannot be enforced
)

// killedWord is the reason that a child gives for a task that it was told to kill. The peer knows the true one.
const killedWord = "killed"

// childArg is the hidden first argument of a child. The kind of its guests and the pool's folder follow.
const childArg = "runner-child"

// groupArg follows if the child is in a control group that its peer kills as one.
const groupArg = "grouped"
