package client

import "time"

// JobSource says where bytes that a job needs are. Exactly one field is set.
type JobSource struct {
	Path   string   `json:"path,omitempty" maxLength:"4096" doc:"A file in the pool; a folder where several files may be"`
	File   string   `json:"file,omitempty" maxLength:"4096" doc:"Absolute path on the machine that is asked; its owner alone may name one"`
	Text   []byte   `json:"text,omitempty" maxLength:"8192" doc:"The bytes themselves, at most 4 KiB, in base64"`
	Stored *JobFile `json:"stored,omitempty" doc:"What POST /v1/jobs/store answered"`
}

// JobFile names bytes that were stored for a job.
type JobFile struct {
	Root   string     `json:"root" maxLength:"128" doc:"CID of the bytes"`
	Size   int64      `json:"size" minimum:"0" doc:"Bytes"`
	Pieces []JobPiece `json:"pieces,omitempty" maxItems:"1024" doc:"The parts that it is kept in; absent when it is one"`
}

// JobPiece is a part of a JobFile.
type JobPiece struct {
	ID   string `json:"id" maxLength:"128" doc:"CID"`
	Size int64  `json:"size" minimum:"1" doc:"Bytes"`
}

// JobInput is a file, or a folder of them, that tasks find under a name.
type JobInput struct {
	Name string    `json:"name" minLength:"1" maxLength:"512" doc:"Tasks find it at /in/NAME, native commands at in/NAME in their folder"`
	From JobSource `json:"from" doc:"Where its bytes are"`
}

// JobProgram is what a job runs.
type JobProgram struct {
	Kind   string     `json:"kind" enum:"wasm,proc" doc:"wasm: a WebAssembly module; proc: a native command of the machine it runs on"`
	Module *JobSource `json:"module,omitempty" doc:"wasm: the module"`
	Path   string     `json:"path,omitempty" maxLength:"4096" doc:"proc: the command"`
	Args   []string   `json:"args,omitempty" maxItems:"1024" doc:"Arguments; {} in them stands for the task's item"`
	Env    []string   `json:"env,omitempty" maxItems:"1024" doc:"NAME=value"`
}

// JobSplit says how a job becomes tasks. One of Count, Items, Files, Lines and Slice is set.
type JobSplit struct {
	Count int        `json:"count,omitempty" minimum:"0" maximum:"1000000" doc:"So many tasks, which differ by SHOAL_TASK; {} is its number"`
	Items []string   `json:"items,omitempty" maxItems:"1000000" doc:"A task for each; {} is the text"`
	Files []JobInput `json:"files,omitempty" maxItems:"100000" doc:"A task for each file, and for each in a folder; {} is where the task finds it. A pool path may end in a pattern, as /photos/*.jpg"`
	Lines *JobSource `json:"lines,omitempty" doc:"A task for each line that is not empty; {} is the line"`
	Slice *JobSource `json:"slice,omitempty" doc:"A task for each part of this file, which it finds on its standard input"`
	Size  int64      `json:"size,omitempty" minimum:"0" doc:"Bytes of a slice"`
	Bytes bool       `json:"bytes,omitempty" doc:"Cut slices exactly there; otherwise at the end of the line"`
}

// JobRequest is the body of POST /v1/jobs.
type JobRequest struct {
	Name    string      `json:"name,omitempty" maxLength:"128" doc:"For people; empty is the command's"`
	Program JobProgram  `json:"program" doc:"What is run for each task"`
	Inputs  []JobInput  `json:"inputs,omitempty" maxItems:"256" doc:"Files that every task finds"`
	Stdin   *JobSource  `json:"stdin,omitempty" doc:"Standard input of every task"`
	Split   *JobSplit   `json:"split,omitempty" doc:"How it becomes tasks; absent: it is one"`
	Reduce  *JobProgram `json:"reduce,omitempty" doc:"What is run once over all outputs, in order, at the end"`

	Cores     int      `json:"cores,omitempty" minimum:"0" maximum:"1024" doc:"Cores for a task; 0 is 1"`
	Memory    int64    `json:"memory,omitempty" minimum:"0" doc:"Bytes of memory for a task; 0 is 512 MiB"`
	Time      float64  `json:"time_s,omitempty" minimum:"0" doc:"Seconds that a task may run; 0 is a day"`
	Output    int64    `json:"output,omitempty" minimum:"0" doc:"Bytes that a task may write; 0 is 1 GiB"`
	Failures  int      `json:"failures,omitempty" minimum:"0" maximum:"64" doc:"Failed attempts after which a task is given up; 0 is 6, or 3 different peers"`
	Exclusive bool     `json:"exclusive,omitempty" doc:"Never run two attempts at a task at a time"`
	AnyExit   bool     `json:"any_exit,omitempty" doc:"An exit code other than 0 is a result, and no failure"`
	Needs     []string `json:"needs,omitempty" maxItems:"16" doc:"Labels that a peer must have, as os=linux"`
	Priority  int      `json:"priority,omitempty" minimum:"-8" maximum:"8" doc:"Greater goes first"`
	Keep      float64  `json:"keep_s,omitempty" minimum:"0" doc:"Seconds that results are kept after the end; 0 is a week"`
	Fresh     bool     `json:"fresh,omitempty" doc:"Run it even if there is a stored result of the same work"`
}

// Submitted is the SSE event "done" of POST /v1/jobs.
type Submitted struct {
	ID       string   `json:"id" doc:"The job's id"`
	Tasks    int      `json:"tasks" doc:"Tasks that it has"`
	Cached   bool     `json:"cached" doc:"Whether the id is of an earlier job that has the same result"`
	Stewards []string `json:"stewards" nullable:"false" doc:"Names of the peers that keep its state"`
	Spare    int      `json:"spare" doc:"How many of the stewards may go away now, this peer included, and the job goes on"`
}

// The states of a job.
const (
	JobWaiting  = "waiting"  // open, and nobody runs any of it
	JobRunning  = "running"  // open, and somebody does
	JobDone     = "done"     // over, every task has a result
	JobFailed   = "failed"   // over, and tasks were given up
	JobCanceled = "canceled" // over, as somebody wanted it

	JobUnreachable = "unreachable" // none of its stewards can be asked now
)

// Job is what is known of a job.
type Job struct {
	ID        string     `json:"id" doc:"The job's id"`
	Name      string     `json:"name" doc:"What it is called"`
	Kind      string     `json:"kind" doc:"wasm or proc"`
	Command   string     `json:"command" doc:"What it runs, in words"`
	Submitter string     `json:"submitter" doc:"Name of the peer that asked for it"`
	Created   time.Time  `json:"created" doc:"When"`
	Ended     time.Time  `json:"ended,omitzero" doc:"When it was over"`
	State     string     `json:"state" enum:"waiting,running,done,failed,canceled,unreachable" doc:"unreachable: none of its stewards can be asked now"`
	Canceled  string     `json:"canceled,omitempty" doc:"Why it was canceled, and by whom"`
	Tasks     int        `json:"tasks" doc:"Tasks, the reduce included"`
	Done      int        `json:"done" doc:"Tasks with a result"`
	Failed    int        `json:"failed" doc:"Tasks that were given up"`
	Dropped   int        `json:"dropped,omitempty" doc:"Tasks that will not be run any more"`
	Running   int        `json:"running" doc:"Tasks that run now, or are about to where they are"`
	Attempts  int        `json:"attempts" doc:"Leases that the leading steward has granted since it leads"`
	Retries   int        `json:"retries" doc:"Of these, second and later ones of a task, as its peer went away or it failed"`
	Workers   int        `json:"workers" doc:"Peers that stand by for it or run it"`
	Rate      float64    `json:"rate" doc:"Tasks a second, lately"`
	Reduce    bool       `json:"reduce,omitempty" doc:"Whether its last task is a reduce"`
	Priority  int        `json:"priority,omitempty" doc:"Greater goes first"`
	Stewards  []Steward  `json:"stewards" nullable:"false" doc:"The peers that keep its state"`
	Spare     int        `json:"spare" doc:"How many of them may go away now, and the job goes on"`
	Leases    []JobLease `json:"leases,omitempty" doc:"Who has which task, by its leading steward"`
}

// Over reports whether nothing more will happen to the job.
func (j Job) Over() bool { return j.State == JobDone || j.State == JobFailed || j.State == JobCanceled }

// Steward is a peer that keeps a job's state.
type Steward struct {
	ID      string `json:"id" doc:"The peer's id"`
	Name    string `json:"name" doc:"Its name"`
	Leading bool   `json:"leading,omitempty" doc:"Whether it grants the leases"`
	Online  bool   `json:"online,omitempty" doc:"Whether it can be reached"`
}

// JobLease is a task in a peer's hands.
type JobLease struct {
	Job    string  `json:"job,omitempty" doc:"The job's id, where several are listed"`
	Task   int     `json:"task" doc:"Which task"`
	Token  string  `json:"token" doc:"Which attempt"`
	Worker string  `json:"worker" doc:"Name of the peer"`
	Phase  string  `json:"phase" doc:"queued, running, frozen or done"`
	Ran    float64 `json:"ran_s" doc:"Seconds that it ran"`
	Copy   bool    `json:"copy,omitempty" doc:"Whether it is the second attempt at a slow task"`
}

// JobList is the answer to GET /v1/jobs.
type JobList struct {
	Jobs []Job `json:"jobs" nullable:"false" doc:"Newest first"`
}

// The states of a task beside those of a job.
const (
	TaskOpen     = "open"
	TaskDone     = "done"
	TaskFailed   = "failed"
	TaskSkipped  = "skipped"  // a reduce that would lack outputs
	TaskCanceled = "canceled" // with its job
)

// TaskResult is what became of a task.
type TaskResult struct {
	Task     int           `json:"task" doc:"Which task"`
	Reduce   bool          `json:"reduce,omitempty" doc:"Whether it is the reduce"`
	Item     string        `json:"item,omitempty" doc:"What stood for {}"`
	State    string        `json:"state" enum:"open,done,failed,skipped,canceled" doc:"failed: it was given up; skipped: a reduce that lacks outputs; canceled: with its job"`
	Worker   string        `json:"worker,omitempty" doc:"Name of the peer that the result is from"`
	Token    string        `json:"token,omitempty" doc:"Which attempt"`
	Exit     int           `json:"exit" doc:"Exit code"`
	Reason   string        `json:"reason,omitempty" doc:"Why it failed"`
	Stdout   JobStream     `json:"stdout" doc:"What it wrote to its standard output"`
	Stderr   JobStream     `json:"stderr" doc:"What it wrote to its standard error"`
	Outputs  []JobOutput   `json:"outputs,omitempty" doc:"Files that it left"`
	Usage    JobUsage      `json:"usage" doc:"What the attempt used"`
	Failures []TaskFailure `json:"failures,omitempty" doc:"Attempts that failed"`
}

// JobStream is what was written to a stream. What is short is here; the rest is had from GET /v1/jobs/output.
type JobStream struct {
	Size   int64  `json:"size" doc:"Bytes in all"`
	Inline []byte `json:"inline,omitempty" doc:"All of them, in base64, if they are few"`
	Cut    bool   `json:"cut,omitempty" doc:"Whether the bound on output was reached, and the rest is lost"`
}

// JobOutput is a file that a task left.
type JobOutput struct {
	Name string `json:"name" doc:"Its path below the task's folder of outputs"`
	Mode uint32 `json:"mode,omitempty" doc:"Permission bits"`
	Size int64  `json:"size" doc:"Bytes"`
}

// JobUsage is what an attempt used.
type JobUsage struct {
	Wall    float64 `json:"wall_s" doc:"Seconds that it ran"`
	CPU     float64 `json:"cpu_s" doc:"Seconds of processor"`
	Memory  int64   `json:"memory" doc:"Bytes, at most at a time"`
	Read    int64   `json:"read" doc:"Bytes of input"`
	Written int64   `json:"written" doc:"Bytes of output"`
	Fetched int64   `json:"fetched" doc:"Bytes of input that came from other peers"`
}

// TaskFailure is an attempt that failed.
type TaskFailure struct {
	Worker string `json:"worker,omitempty" doc:"Name of the peer; it is kept of the last attempt only"`
	Exit   int    `json:"exit,omitempty" doc:"Exit code"`
	Reason string `json:"reason" doc:"Why, in words"`
}

// JobEvent is what happened to a job: its state now, or tasks that were closed.
type JobEvent struct {
	Job    *Job         `json:"job,omitempty" doc:"How the job is"`
	Closed []TaskClosed `json:"closed,omitempty" doc:"Tasks that were closed; each is told once"`
}

// TaskClosed is a task that has its end.
type TaskClosed struct {
	Task  int    `json:"task" doc:"Which task"`
	State string `json:"state" enum:"done,failed,skipped,canceled" doc:"As in TaskResult"`
}

// JobOutputText is a part of what a task writes.
type JobOutputText struct {
	Stream string `json:"stream" enum:"stdout,stderr,note" doc:"note: words about the output, such as that another attempt began"`
	Data   []byte `json:"data" doc:"The bytes, in base64"`
}

// PeerReason says why a peer does not run a task, or what it does about it.
type PeerReason struct {
	Peer    string `json:"peer" doc:"Name of the peer"`
	Steward bool   `json:"steward,omitempty" doc:"Whether it speaks as the job's leading steward"`
	Reason  string `json:"reason" doc:"One sentence"`
}

// JobWhy is the answer to GET /v1/jobs/why.
type JobWhy struct {
	Job     string       `json:"job" doc:"The job's id"`
	Task    int          `json:"task" doc:"Which task"`
	Reasons []PeerReason `json:"reasons" nullable:"false" doc:"The leading steward's first, then each peer's"`
}

// JobSaveRequest is the body of POST /v1/jobs/save.
type JobSaveRequest struct {
	Job  string `json:"job" minLength:"1" maxLength:"256" doc:"An id, the beginning of one, or a name"`
	Task int    `json:"task" minimum:"-1" doc:"Which task; -1: the reduce if there is one, or else all"`
	Path string `json:"path" minLength:"1" maxLength:"4096" doc:"Folder in the pool"`

	Streams bool `json:"streams,omitempty" doc:"Standard outputs too"`
}

// JobRequestByID is the body of requests that name a job.
type JobRequestByID struct {
	Job string `json:"job" minLength:"1" maxLength:"256" doc:"An id, the beginning of one, or a name"`
	Why string `json:"why,omitempty" maxLength:"256" doc:"Why, for those who look later"`
}

// MineRequest is the body of POST /v1/mine.
type MineRequest struct {
	On bool `json:"on" doc:"Whether the owner takes the machine back; false gives it to the pool again"`
}

// Worker is what this peer does for the pool's tasks.
type Worker struct {
	Cores     int        `json:"cores" doc:"Cores that it lends now"`
	CoresMost int        `json:"cores_most" doc:"Cores that it lends when it may"`
	Memory    int64      `json:"memory" doc:"Bytes of memory that it lends"`
	When      string     `json:"when" enum:"always,mains,idle" doc:"When it lends"`
	Why       string     `json:"why,omitempty" doc:"Why it lends nothing now"`
	Mine      bool       `json:"mine" doc:"Whether its owner took it back"`
	AllowExec bool       `json:"allow_exec" doc:"Whether it runs native commands"`
	Labels    []string   `json:"labels" nullable:"false" doc:"What jobs can ask for with needs"`
	Running   int        `json:"running" doc:"Tasks that run on it now"`
	Tasks     []JobLease `json:"tasks" nullable:"false" doc:"Tasks in its hands"`
	Stewards  int        `json:"stewards" doc:"Jobs whose state it keeps"`
	Leads     int        `json:"leads" doc:"Of these, it grants the leases of"`
}
