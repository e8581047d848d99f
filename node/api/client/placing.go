package client

import (
	"fmt"
	"path"
	"strconv"
)

// Placed is a part of a task's result and where in a folder it goes.
type Placed struct {
	Task   int
	Part   string // OutputStdout or OutputFile
	Name   string // of a file, as the task named it
	Path   string // in the folder
	Mode   uint32 // permission bits; 0 says nothing
	Size   int64
	Inline []byte // all of it, if it is short and a stream
}

// Placing gives what tasks left a place in one folder: files under their own names, as though one task had left them all, and
// standard outputs beside them as TASK.stdout. A name that another task used before goes into a folder TASK. It is the same
// wherever it is done, as long as the tasks come in order.
type Placing struct {
	Tasks   int  // of the job
	Streams bool // standard output too, where it is not empty

	taken map[string]bool
}

// Place places one task's result.
func (p *Placing) Place(r TaskResult) (out []Placed) {
	if p.taken == nil {
		p.taken = map[string]bool{}
	}
	number := fmt.Sprintf("%0*d", len(strconv.Itoa(max(p.Tasks-1, 0))), r.Task)
	if r.Reduce {
		number = "reduce"
	}
	if p.Streams && r.Stdout.Size > 0 {
		name := number + ".stdout"
		if p.Tasks == 1 {
			name = "stdout"
		}
		out = append(out, Placed{Task: r.Task, Part: OutputStdout, Path: p.free(name, number), Size: r.Stdout.Size, Inline: r.Stdout.Inline})
	}
	for _, o := range r.Outputs {
		out = append(out, Placed{Task: r.Task, Part: OutputFile, Name: o.Name, Path: p.free(path.Clean(o.Name), number), Mode: o.Mode, Size: o.Size})
	}
	return out
}

// free takes a name, below a folder of the task's own if need be.
func (p *Placing) free(name, number string) string {
	for p.taken[name] {
		name = number + "/" + name
	}
	p.taken[name] = true
	return name
}
