package job

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/storage/chunk"
)

// Bounds of a spec. A longer list of inputs is a file of its own; see EncodeItems.
const (
	SignedMax  = 256 << 10 // bytes of a signed spec
	TasksMax   = 1_000_000 // tasks of a job, the reduce apart
	NameMax    = 128       // bytes of a name for people, of an input's or output's name
	ArgsMax    = 1024      // arguments, and variables of the environment
	ArgMax     = 64 << 10  // bytes of one argument
	InputsMax  = 256       // inputs of a task
	PiecesMax  = 1024      // pieces of a file: 1 TiB
	NeedsMax   = 16        // labels
	CoresMax   = 1024
	MemoryMax  = 1 << 46
	WallMax    = 30 * 24 * time.Hour
	OutputMax  = 1 << 44
	FilesMax   = 1 << 50 // bytes of a file
	StdinMax   = 4 << 10 // bytes of standard input that stand in the spec itself
	RetainMax  = 365 * 24 * time.Hour
	PriorityMx = 8 // priorities run from minus this to this
)

// What counts when a spec leaves it out.
const (
	CoresDefault    = 1
	MemoryDefault   = 512 << 20
	WallDefault     = 24 * time.Hour
	OutputDefault   = 1 << 30
	RetainDefault   = 7 * 24 * time.Hour
	FailuresDefault = 6 // failed attempts in all, after which a task is poisoned whoever ran it
	FailuresMax     = 64
)

// Kind says how a program is run.
type Kind uint8

// The kinds of program. Numbers are part of the encoding and append-only.
const (
	Wasm Kind = 1 // a WebAssembly module for WASI preview 1
	Proc Kind = 2 // a native command of the worker's machine, where its owner allows it
)

// String is the runner's name.
func (k Kind) String() string {
	switch k {
	case Wasm:
		return "wasm"
	case Proc:
		return "proc"
	}
	return "unknown"
}

// Piece is a part of a file, the unit in which the pool places bytes.
type Piece struct {
	ID   chunk.CID
	Size int64
}

// File names bytes by their root. Pieces are nil when the root is the one piece or the file is empty; convert from and
// to storage's piece.File field by field. The zero value is no file.
type File struct {
	Root   chunk.CID
	Size   int64
	Pieces []Piece
}

// Defined reports whether f names a file.
func (f File) Defined() bool { return f.Root.Defined() }

// All returns the file's pieces, the root itself if it is the only one.
func (f File) All() []Piece {
	if len(f.Pieces) > 0 || !f.Defined() || f.Size == 0 {
		return f.Pieces
	}
	return []Piece{{f.Root, f.Size}}
}

// Input is a file that a task finds as /in/NAME.
type Input struct {
	Name string // a path without "..", "/" between its elements
	File File
}

// Source is what a task reads from its standard input: a text of at most StdinMax bytes, or a file. The zero value is
// nothing.
type Source struct {
	Text []byte
	File File
}

// Command is a program with its arguments. In arguments "{}" stands for the item's text.
type Command struct {
	Kind   Kind
	Module File   // of Wasm
	Path   string // of Proc: what the worker's machine calls it
	Args   []string
	Env    []string // NAME=value
}

// SplitKind says how a job becomes tasks.
type SplitKind uint8

// The kinds of split. Numbers are part of the encoding and append-only.
const (
	One    SplitKind = 0 // one task
	Count  SplitKind = 1 // Split.Count tasks that differ by SHOAL_TASK alone
	Items  SplitKind = 2 // one task for each of Split.Items
	List   SplitKind = 3 // Split.Count tasks, one for each item of the file Split.File, written by EncodeItems
	Slices SplitKind = 4 // one task for each Split.Slice bytes of Split.File, on its standard input
)

// Split says how a job becomes tasks.
type Split struct {
	Kind  SplitKind
	Count uint32
	Items []Item
	File  File
	Slice int64 // bytes, at least SliceMin
	Lines bool  // of Slices: cut after the line end that follows, not at the byte
}

// SliceMin is the least size of a slice, in bytes.
const SliceMin = 64 << 10

// Item is what one task of several gets for itself.
type Item struct {
	Text   string  // stands for "{}" in the arguments
	Inputs []Input // beside the job's own
}

// Resources bound one task. Zero fields stand for the defaults above; Spec.Limits fills them in.
type Resources struct {
	Cores  int
	Memory int64 // bytes
	Wall   time.Duration
	Output int64 // bytes of standard output, standard error and files together
}

// Spec says what is to be done, for whom and within which bounds. It is a plain value.
type Spec struct {
	Pool      ident.PoolID
	Submitter peer.ID
	Created   time.Time // to the millisecond
	Nonce     uint64    // chance, so that the same work can be asked for twice
	Name      string    // for people

	Command Command
	Inputs  []Input // of every task
	Stdin   Source  // of every task; with Slices the slice is standard input instead
	Split   Split
	Reduce  *Command // run once over all outputs in order when every task is done; nil for none

	Resources Resources
	Failures  int           // failed attempts at one task that poison it; 0: FailuresDefault
	Exclusive bool          // never two attempts at a time, no salvage
	AnyExit   bool          // a program that ends with any exit code has a result; otherwise only 0 is one
	Needs     []string      // labels that a worker must have, such as "os=linux"
	Priority  int           // from -PriorityMx to PriorityMx; greater goes first
	Retention time.Duration // how long results are kept after the end; 0: RetainDefault
}

// Tasks returns how many tasks the split makes, the reduce not counted.
func (s *Spec) Tasks() int {
	switch s.Split.Kind {
	case Count, List:
		return int(s.Split.Count)
	case Items:
		return len(s.Split.Items)
	case Slices:
		return int((s.Split.File.Size + s.Split.Slice - 1) / s.Split.Slice)
	}
	return 1
}

// All returns how many tasks the job has, with the reduce, whose index is the last.
func (s *Spec) All() int {
	if s.Reduce != nil {
		return s.Tasks() + 1
	}
	return s.Tasks()
}

// Limits returns the resources with the defaults filled in.
func (s *Spec) Limits() Resources {
	r := s.Resources
	if r.Cores == 0 {
		r.Cores = CoresDefault
	}
	if r.Memory == 0 {
		r.Memory = MemoryDefault
	}
	if r.Wall == 0 {
		r.Wall = WallDefault
	}
	if r.Output == 0 {
		r.Output = OutputDefault
	}
	return r
}

// Attempts returns how many failed attempts poison a task.
func (s *Spec) Attempts() int {
	if s.Failures == 0 {
		return FailuresDefault
	}
	return s.Failures
}

// Keep returns how long results are kept after the job's end.
func (s *Spec) Keep() time.Duration {
	if s.Retention == 0 {
		return RetainDefault
	}
	return s.Retention
}
