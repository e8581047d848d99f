package exec

import "os"

// stopSelf ends this process: on Windows suspending is counted, and nobody could tell how often to resume it.
func stopSelf() { os.Exit(CodeKilled) }
