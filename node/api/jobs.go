package api

import (
	"context"
	"encoding/json"
	"io"
	"iter"
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/danielgtaylor/huma/v2/sse"

	"github.com/shoal-os/shoal/node/api/client"
)

// Tasker is the pool's work, as this peer sees it, asks for it and does it. A job is named by its id, the beginning of it, or
// its name.
type Tasker interface {
	JobAsker
	JobTeller
	JobReader
	Lender
}

// JobAsker asks for work. JobStore reads r to its end.
type JobAsker interface {
	JobSubmit(ctx context.Context, req client.JobRequest, progress func(client.Progress)) (client.Submitted, error)
	JobStore(ctx context.Context, name string, r io.Reader) (client.JobFile, error)
	JobKill(ctx context.Context, req client.JobRequestByID) (client.Job, error)
	JobSave(ctx context.Context, req client.JobSaveRequest, progress func(client.Progress)) (client.FileTransfer, error)
}

// JobTeller tells of jobs. JobWatch calls each, from one goroutine, first with how the job is, until the job is over, and
// returns how it ended.
type JobTeller interface {
	Jobs(ctx context.Context, all bool) ([]client.Job, error)
	Job(ctx context.Context, job string) (client.Job, error)
	JobWatch(ctx context.Context, job string, each func(client.JobEvent) error) (client.Job, error)
	JobWhy(ctx context.Context, job string, task int) (client.JobWhy, error)
}

// JobReader reads results. A sequence ends with its first error. JobOutput is like [Reader]'s Cat; JobLogs calls each from one
// goroutine.
type JobReader interface {
	JobResults(ctx context.Context, job string, first, count int) iter.Seq2[client.TaskResult, error]
	JobOutput(ctx context.Context, job string, task int, part, name string, begin func(size int64) io.Writer) error
	JobLogs(ctx context.Context, job string, task int, follow bool, each func(client.JobOutputText) error) error
}

// Lender is what this machine does for the pool's tasks.
type Lender interface {
	Worker(ctx context.Context) (client.Worker, error)
	Mine(ctx context.Context, on bool) (client.Worker, error)
}

const (
	// jobBytesMax bounds a request for work: a hundred thousand paths fit.
	jobBytesMax = 32 << 20

	storeText = "The request's body is the file, which a job's request then names. Answers once two machines have it, if there are two."
	jobText   = "Answers with server-sent events: any number of `job`, then one `done` when the job is over, or one `error`."
	logText   = "Answers with server-sent events: any number of `output`, then one `done` or one `error`."
	partText  = "Answers with the bytes as they arrive, and their number in the header " + client.SizeHeader +
		". A failure on the way is in the trailer " + client.ErrorTrailer + "."
)

type jobInput struct {
	Job string `query:"job" required:"true" minLength:"1" maxLength:"256" doc:"An id, the beginning of one, or a name"`
}

type taskInput struct {
	Job  string `query:"job" required:"true" minLength:"1" maxLength:"256" doc:"An id, the beginning of one, or a name"`
	Task int    `query:"task" minimum:"0" doc:"Which task"`
}

type jobsInput struct {
	All bool `query:"all" doc:"All that are known, not only those that run or ended within a day"`
}

type jobLogsInput struct {
	Job    string `query:"job" required:"true" minLength:"1" maxLength:"256" doc:"An id, the beginning of one, or a name"`
	Task   int    `query:"task" minimum:"0" doc:"Which task"`
	Follow bool   `query:"follow" doc:"Until the task is closed"`
}

type jobResultsInput struct {
	Job   string `query:"job" required:"true" minLength:"1" maxLength:"256" doc:"An id, the beginning of one, or a name"`
	First int    `query:"first" minimum:"0" doc:"The first task"`
	Count int    `query:"count" minimum:"0" doc:"How many; 0 is all that follow"`
}

type jobStoreInput struct {
	Name string `query:"name" maxLength:"255" doc:"For messages"`
}

func routeJobs(a huma.API, p Tasker) {
	submit := operation(a, "POST", "/v1/jobs", "job-submit", "Ask for work", eventsText)
	submit.MaxBodyBytes = jobBytesMax
	sse.Register(a, submit, events(client.Submitted{}), func(ctx context.Context, in *body[client.JobRequest], send sse.Sender) {
		follow(ctx, send, func(ctx context.Context, progress func(client.Progress)) (client.Submitted, error) {
			return p.JobSubmit(ctx, in.Body, progress)
		})
	})
	routeJobStore(a, p)
	huma.Register(a, operation(a, "GET", "/v1/jobs", "jobs", "List jobs", ""), func(ctx context.Context, in *jobsInput) (*body[client.JobList], error) {
		jobs, err := p.Jobs(ctx, in.All)
		if err != nil {
			return nil, fail(err)
		}
		return &body[client.JobList]{client.JobList{Jobs: jobs}}, nil
	})
	ask(a, operation(a, "GET", "/v1/jobs/job", "job", "How a job is", ""),
		func(ctx context.Context, in *jobInput) (client.Job, error) { return p.Job(ctx, in.Job) })
	ask(a, operation(a, "GET", "/v1/jobs/why", "job-why", "Why a task does not run", ""),
		func(ctx context.Context, in *taskInput) (client.JobWhy, error) { return p.JobWhy(ctx, in.Job, in.Task) })
	act(a, operation(a, "POST", "/v1/jobs/kill", "job-kill", "End a job", "It is no error if it is over."), p.JobKill)
	routeJobEvents(a, p)
	routeJobResults(a, p)
	routeJobOutput(a, p)
	sse.Register(a, operation(a, "POST", "/v1/jobs/save", "job-save", "Put what tasks left into the pool", eventsText), events(client.FileTransfer{}),
		func(ctx context.Context, in *body[client.JobSaveRequest], send sse.Sender) {
			follow(ctx, send, func(ctx context.Context, progress func(client.Progress)) (client.FileTransfer, error) {
				return p.JobSave(ctx, in.Body, progress)
			})
		})
	route(a, operation(a, "GET", "/v1/worker", "worker", "What this peer does for tasks", ""), p.Worker)
	act(a, operation(a, "POST", "/v1/mine", "mine", "Take the machine back from tasks, or give it again", ""),
		func(ctx context.Context, req client.MineRequest) (client.Worker, error) { return p.Mine(ctx, req.On) })
}

// ask registers a question with parameters.
func ask[In, T any](a huma.API, op huma.Operation, answer func(context.Context, *In) (T, error)) {
	huma.Register(a, op, func(ctx context.Context, in *In) (*body[T], error) {
		out, err := answer(ctx, in)
		if err != nil {
			return nil, fail(err)
		}
		return &body[T]{out}, nil
	})
}

// routeJobStore registers an upload, whose body is the file.
func routeJobStore(a huma.API, p JobAsker) {
	huma.Register(a, taking(a, operation(a, http.MethodPost, "/v1/jobs/store", "job-store", "Store a file for a job", storeText), reflect.TypeFor[client.JobFile]()),
		func(_ context.Context, in *jobStoreInput) (*huma.StreamResponse, error) {
			name := in.Name
			return receive(func(ctx context.Context, r io.Reader) (client.JobFile, error) { return p.JobStore(ctx, name, r) }), nil
		})
}

// routeJobEvents registers what is followed.
func routeJobEvents(a huma.API, p Tasker) {
	sse.Register(a, operation(a, "GET", "/v1/jobs/watch", "job-watch", "Follow a job to its end", jobText), map[string]any{
		client.EventJob: client.JobEvent{}, client.EventDone: client.Job{}, client.EventError: client.Error{},
	}, func(ctx context.Context, in *jobInput, send sse.Sender) {
		end(ctx, send, func() (client.Job, error) {
			return p.JobWatch(ctx, in.Job, func(e client.JobEvent) error { return sendIf(ctx, send, e) })
		})
	})
	sse.Register(a, operation(a, "GET", "/v1/jobs/logs", "job-logs", "What a task writes", logText), map[string]any{
		client.EventOutput: client.JobOutputText{}, client.EventDone: struct{}{}, client.EventError: client.Error{},
	}, func(ctx context.Context, in *jobLogsInput, send sse.Sender) {
		end(ctx, send, func() (struct{}, error) {
			return struct{}{}, p.JobLogs(ctx, in.Job, in.Task, in.Follow, func(t client.JobOutputText) error { return sendIf(ctx, send, t) })
		})
	})
}

// end does work that sends events itself, and sends the last. Nobody may be there to read it, which is no error.
func end[T any](ctx context.Context, send sse.Sender, work func() (T, error)) {
	out, err := work()
	if err != nil {
		_ = sendIf(ctx, send, *asError(err))
		return
	}
	_ = sendIf(ctx, send, out)
}

// sendIf sends an event unless the reader is gone, of which the framework would complain in the peer's log: many a command leaves
// when it has seen enough.
func sendIf(ctx context.Context, send sse.Sender, event any) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return send.Data(event)
}

func routeJobResults(a huma.API, p JobReader) {
	op := operation(a, "GET", "/v1/jobs/results", "job-results", "What became of tasks, in order", linesText)
	op.Responses["200"] = &huma.Response{Description: "The results", Content: map[string]*huma.MediaType{"application/jsonl": {
		Schema: a.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[client.TaskResult](), true, "TaskResult"),
	}}}
	huma.Register(a, op, func(_ context.Context, in *jobResultsInput) (*huma.StreamResponse, error) {
		job, first, count := in.Job, in.First, in.Count
		return &huma.StreamResponse{Body: func(ctx huma.Context) {
			_, w := humago.Unwrap(ctx)
			writeLines(w, p.JobResults(ctx.Context(), job, first, count))
		}}, nil
	})
}

type jobOutputInput struct {
	Job  string `query:"job" required:"true" minLength:"1" maxLength:"256" doc:"An id, the beginning of one, or a name"`
	Task int    `query:"task" minimum:"0" doc:"Which task"`
	Part string `query:"part" required:"true" enum:"stdout,stderr,file" doc:"Which part of its result"`
	Name string `query:"name" maxLength:"512" doc:"file: which one"`
}

func routeJobOutput(a huma.API, p JobReader) {
	op := operation(a, http.MethodGet, "/v1/jobs/output", "job-output", "Read a part of a task's result", partText)
	op.Responses["200"] = &huma.Response{Description: "The bytes", Content: map[string]*huma.MediaType{"application/octet-stream": {}}}
	huma.Register(a, op, func(_ context.Context, in *jobOutputInput) (*huma.StreamResponse, error) {
		q := *in
		return &huma.StreamResponse{Body: func(ctx huma.Context) {
			_, w := humago.Unwrap(ctx)
			pour(w, func(begin func(int64) io.Writer) error {
				return p.JobOutput(ctx.Context(), q.Job, q.Task, q.Part, q.Name, begin)
			})
		}}, nil
	})
}

// taking adds to an operation that its body is a file, and what it answers with. The document says so; huma itself would read
// the body into memory.
func taking(a huma.API, op huma.Operation, answer reflect.Type) huma.Operation {
	op.RequestBody = &huma.RequestBody{Content: map[string]*huma.MediaType{"application/octet-stream": {}}}
	op.Responses["200"] = &huma.Response{Description: "What was written", Content: map[string]*huma.MediaType{"application/json": {
		Schema: huma.SchemaFromType(a.OpenAPI().Components.Schemas, answer),
	}}}
	return op
}

// receive answers with what became of the request's body.
func receive[T any](take func(context.Context, io.Reader) (T, error)) *huma.StreamResponse {
	return &huma.StreamResponse{Body: func(ctx huma.Context) {
		r, w := humago.Unwrap(ctx)
		out, err := take(r.Context(), r.Body)
		if err != nil {
			answerError(w, asError(err))
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(out)
	}}
}
