package api

import (
	"bufio"
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

// Filer is the pool's files, as this peer sees and changes them.
type Filer interface {
	FileMover
	FileTeller
	FileChanger
	FileKeeper
	FileMounter
}

// FileMover moves bytes between this machine and the pool. FileWrite reads r to its end.
type FileMover interface {
	FilePut(ctx context.Context, req client.FilePutRequest, progress func(client.Progress)) (client.FileTransfer, error)
	FileGet(ctx context.Context, req client.FileGetRequest, progress func(client.Progress)) (client.FileTransfer, error)
	FileWrite(ctx context.Context, path string, copies int, r io.Reader) (client.FileTransfer, error)
}

// FileTeller lists. A sequence ends with its first error.
type FileTeller interface {
	FileStat(ctx context.Context, path string) (client.PoolFile, error)
	FileList(ctx context.Context, path string, opt client.ListOptions) iter.Seq2[client.PoolFile, error]
	FileHistory(ctx context.Context, path string) iter.Seq2[client.PoolFile, error]
	FilePins(ctx context.Context) iter.Seq2[client.PoolFile, error]
}

// FileChange is what to do with one path.
type FileChange string

// The changes, as their requests are called.
const (
	FileMkdir   FileChange = "mkdir"
	FileMove    FileChange = "mv"
	FileCopy    FileChange = "cp"
	FileRemove  FileChange = "rm"
	FileRestore FileChange = "restore"
	FilePin     FileChange = "pin"
	FileUnpin   FileChange = "unpin"
	FilePurge   FileChange = "purge"
)

// FileChanger changes names; no bytes move before it answers.
type FileChanger interface {
	FileChange(ctx context.Context, what FileChange, req client.FileRequest) (client.FileChange, error)
}

// FileKeeper looks after the bytes.
type FileKeeper interface {
	FileSpace(ctx context.Context) (client.Space, error)
	FileWhatIf(ctx context.Context, remove string) (client.WhatIf, error)
	FileScrub(ctx context.Context, progress func(client.Progress)) (client.ScrubReport, error)
	FileCollect(ctx context.Context, purge bool) (client.Collected, error)
}

// FileMounter serves the files over WebDAV until ctx ends, and calls ready once it does.
type FileMounter interface {
	Mount(ctx context.Context, req client.MountRequest, ready func(client.Mounted) error) error
}

const (
	mountText = "Answers with server-sent events: one `mounted`, and one `error` if it fails. It lasts as long as the connection."
	linesText = "Answers with one JSON value a line. The last is {\"end\":true}, or holds an `error`."
	namesText = " With names, it answers with a path a line; the last line begins with U+0001, and holds an error if there was one."
	writeText = "The request's body is the file. Answers once it is durable, on a second machine too if there is one."
	linesBuf  = 64 << 10
)

type pathInput struct {
	Path string `query:"path" required:"true" minLength:"1" maxLength:"4096" doc:"The path in the pool"`
}

type listInput struct {
	Path      string `query:"path" required:"true" minLength:"1" maxLength:"4096" doc:"The path in the pool"`
	Long      bool   `query:"long" doc:"All fields, and how safe the bytes are"`
	Recursive bool   `query:"recursive" doc:"Everything below the path"`
	Pattern   string `query:"pattern" maxLength:"4096" doc:"Only what matches, at any depth"`
	Sum       bool   `query:"sum" doc:"Sizes and counts of folders"`
	Names     bool   `query:"names" doc:"Only paths, as text, those of folders with a / behind: a tenth of the work for a hundred thousand"`
}

type removeInput struct {
	Remove string `query:"remove" required:"true" minLength:"1" maxLength:"256" doc:"A member's name, its beginning, or its id"`
}

type purgeRequest struct {
	Purge bool `json:"purge,omitempty" doc:"Delete what was put aside, without waiting for its day to end"`
}

func routeFiles(a huma.API, p Filer) {
	sse.Register(a, operation(a, "POST", "/v1/files/put", "file-put", "Copy a file or folder into the pool", eventsText), events(client.FileTransfer{}),
		func(ctx context.Context, in *body[client.FilePutRequest], send sse.Sender) {
			follow(ctx, send, func(ctx context.Context, progress func(client.Progress)) (client.FileTransfer, error) {
				return p.FilePut(ctx, in.Body, progress)
			})
		})
	sse.Register(a, operation(a, "POST", "/v1/files/get", "file-get", "Copy a file or folder out of the pool", eventsText), events(client.FileTransfer{}),
		func(ctx context.Context, in *body[client.FileGetRequest], send sse.Sender) {
			follow(ctx, send, func(ctx context.Context, progress func(client.Progress)) (client.FileTransfer, error) {
				return p.FileGet(ctx, in.Body, progress)
			})
		})
	routeWrite(a, p)
	huma.Register(a, operation(a, "GET", "/v1/files/stat", "file-stat", "One path", ""),
		func(ctx context.Context, in *pathInput) (*body[client.PoolFile], error) {
			answer, err := p.FileStat(ctx, in.Path)
			if err != nil {
				return nil, fail(err)
			}
			return &body[client.PoolFile]{answer}, nil
		})
	routeList(a, p)
	lines(a, operation(a, "GET", "/v1/files/history", "file-history", "Versions of a path, newest first", linesText),
		func(ctx context.Context, in *pathInput) iter.Seq2[client.PoolFile, error] {
			return p.FileHistory(ctx, in.Path)
		})
	lines(a, operation(a, "GET", "/v1/files/pins", "file-pins", "What is pinned to this peer", linesText),
		func(ctx context.Context, _ *struct{}) iter.Seq2[client.PoolFile, error] { return p.FilePins(ctx) })
	for what, summary := range map[FileChange]string{
		FileMkdir: "Make a folder", FileMove: "Give a file or folder another path", FileCopy: "Give it a second path",
		FileRemove: "Remove a file or folder, restorable for 30 days", FileRestore: "Bring an earlier version back",
		FilePin: "Keep all that is at a path on this peer", FileUnpin: "End a pin",
		FilePurge: "Delete replaced and removed versions at and under a path for good",
	} {
		act(a, operation(a, "POST", "/v1/files/"+string(what), "file-"+string(what), summary, ""),
			func(ctx context.Context, req client.FileRequest) (client.FileChange, error) {
				return p.FileChange(ctx, what, req)
			})
	}
	route(a, operation(a, "GET", "/v1/files/space", "file-space", "The pool's disk, and how safe what is on it is", ""), p.FileSpace)
	huma.Register(a, operation(a, "GET", "/v1/files/what-if", "file-what-if", "What a member's departure would mean", ""),
		func(ctx context.Context, in *removeInput) (*body[client.WhatIf], error) {
			answer, err := p.FileWhatIf(ctx, in.Remove)
			if err != nil {
				return nil, fail(err)
			}
			return &body[client.WhatIf]{answer}, nil
		})
	sse.Register(a, operation(a, "POST", "/v1/files/scrub", "file-scrub", "Read everything here again, and mend it", eventsText), events(client.ScrubReport{}),
		func(ctx context.Context, _ *body[struct{}], send sse.Sender) { follow(ctx, send, p.FileScrub) })
	sse.Register(a, operation(a, "POST", "/v1/files/mount", "file-mount", "Serve the files over WebDAV", mountText), map[string]any{
		client.EventMounted: client.Mounted{}, client.EventDone: struct{}{}, client.EventError: client.Error{},
	}, func(ctx context.Context, in *body[client.MountRequest], send sse.Sender) {
		if err := p.Mount(ctx, in.Body, func(m client.Mounted) error { return send.Data(m) }); err != nil && ctx.Err() == nil {
			_ = send.Data(*asError(err))
		}
	})
	act(a, operation(a, "POST", "/v1/files/gc", "file-gc", "Put aside what nothing names any more", ""),
		func(ctx context.Context, req purgeRequest) (client.Collected, error) {
			return p.FileCollect(ctx, req.Purge)
		})
}

type writeInput struct {
	Path   string `query:"path" required:"true" minLength:"1" maxLength:"4096" doc:"The path in the pool"`
	Copies int    `query:"copies" minimum:"0" maximum:"16" doc:"Copies to keep; 0 is 3"`
}

// routeWrite registers an upload, whose body is a file.
func routeWrite(a huma.API, p FileMover) {
	huma.Register(a, taking(a, operation(a, http.MethodPost, "/v1/files/write", "file-write", "Make a pool file", writeText), reflect.TypeFor[client.FileTransfer]()),
		func(_ context.Context, in *writeInput) (*huma.StreamResponse, error) {
			path, copies := in.Path, in.Copies
			return receive(func(ctx context.Context, r io.Reader) (client.FileTransfer, error) {
				return p.FileWrite(ctx, path, copies, r)
			}), nil
		})
}

// routeList registers the listing that may be of names only.
func routeList(a huma.API, p FileTeller) {
	huma.Register(a, listing(a, operation(a, "GET", "/v1/files/list", "file-list", "List pool files", linesText+namesText)),
		func(_ context.Context, in *listInput) (*huma.StreamResponse, error) {
			opt := client.ListOptions{Long: in.Long, Recursive: in.Recursive, Pattern: in.Pattern, Sum: in.Sum}
			path, write := in.Path, writeLines[client.PoolFile]
			if in.Names {
				write = writeNames
			}
			return &huma.StreamResponse{Body: func(ctx huma.Context) {
				_, w := humago.Unwrap(ctx)
				write(w, p.FileList(ctx.Context(), path, opt))
			}}, nil
		})
}

// lines registers a listing, which may be long.
func lines[In any](a huma.API, op huma.Operation, list func(context.Context, *In) iter.Seq2[client.PoolFile, error]) {
	huma.Register(a, listing(a, op), func(_ context.Context, in *In) (*huma.StreamResponse, error) {
		return &huma.StreamResponse{Body: func(ctx huma.Context) {
			_, w := humago.Unwrap(ctx)
			writeLines(w, list(ctx.Context(), in))
		}}, nil
	})
}

// listing adds to an operation what it answers with.
func listing(a huma.API, op huma.Operation) huma.Operation {
	op.Responses["200"] = &huma.Response{Description: "The listing", Content: map[string]*huma.MediaType{"application/jsonl": {
		Schema: a.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[client.PoolFile](), true, "PoolFile"),
	}}}
	return op
}

// writeNames answers with paths as text. Paths have no control characters, so a line that begins with one is something
// else: the error that ended the listing, or its end.
func writeNames(w http.ResponseWriter, list iter.Seq2[client.PoolFile, error]) {
	out := bufio.NewWriterSize(w, linesBuf)
	begun := false
	for file, err := range list {
		if err != nil && !begun {
			answerError(w, asError(err))
			return
		}
		if !begun {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			begun = true
		}
		if err != nil {
			text, _ := json.Marshal(asError(err))
			_, _ = out.WriteString(client.NamesEnd + string(text) + "\n")
			_ = out.Flush()
			return
		}
		_, _ = out.WriteString(file.Path)
		if file.Kind == "folder" {
			_ = out.WriteByte('/')
		}
		if out.WriteByte('\n') != nil {
			return // nobody reads any more
		}
	}
	_, _ = out.WriteString(client.NamesEnd + "\n")
	_ = out.Flush()
}

// writeLines answers with an error's status as long as there is no line yet.
func writeLines[T any](w http.ResponseWriter, list iter.Seq2[T, error]) {
	out := bufio.NewWriterSize(w, linesBuf)
	enc := json.NewEncoder(out)
	begun := false
	begin := func() {
		if !begun {
			w.Header().Set("Content-Type", "application/jsonl")
			begun = true
		}
	}
	for value, err := range list {
		if err != nil && !begun {
			answerError(w, asError(err))
			return
		}
		begin()
		if err != nil {
			_ = enc.Encode(map[string]*client.Error{"error": asError(err)})
			_ = out.Flush()
			return
		}
		if enc.Encode(value) != nil {
			return // nobody reads any more
		}
	}
	begin()
	_ = enc.Encode(map[string]bool{"end": true})
	_ = out.Flush()
}
