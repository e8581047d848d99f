package api

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strconv"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/shoal-os/shoal/node/api/client"
)

// Reader reads a file of a link, fetching what is not here. It calls begin once
// with the file's size, in bytes, and writes all of the file to what that
// returns. An error before begin is like any other; one after it ends the bytes.
type Reader interface {
	Cat(ctx context.Context, req client.CatRequest, begin func(size int64) io.Writer) error
}

const catText = "Answers with the bytes as they arrive, each verified, and their number in the header " + client.SizeHeader +
	". A failure on the way is in the trailer " + client.ErrorTrailer + "."

// catInput is CatRequest as a query.
type catInput struct {
	Link    string  `query:"link" required:"true" minLength:"1" maxLength:"8192" doc:"A shoal: link or a bare CID"`
	Path    string  `query:"path" maxLength:"4096" doc:"The file inside; empty when the link names a file"`
	Timeout float64 `query:"timeout_s" minimum:"0" doc:"Give up after this many seconds in which nothing arrived; 0 is the peer's default"`
}

// routeCat registers the one route whose answer is neither JSON nor events.
func routeCat(a huma.API, p Reader) {
	op := operation(a, http.MethodGet, "/v1/cat", "cat", "Read a file of a link", catText)
	op.Responses["200"] = &huma.Response{
		Description: "The file",
		Content:     map[string]*huma.MediaType{"application/octet-stream": {}},
	}
	huma.Register(a, op, func(_ context.Context, in *catInput) (*huma.StreamResponse, error) {
		req := client.CatRequest{Link: in.Link, Path: in.Path, Timeout: in.Timeout}
		return &huma.StreamResponse{Body: func(ctx huma.Context) {
			_, w := humago.Unwrap(ctx)
			pour(w, func(begin func(int64) io.Writer) error { return p.Cat(ctx.Context(), req, begin) })
		}}, nil
	})
}

// pour answers with the bytes that read writes.
func pour(w http.ResponseWriter, read func(begin func(size int64) io.Writer) error) {
	begun := false
	err := read(func(size int64) io.Writer {
		begun = true
		h := w.Header()
		h.Set("Content-Type", "application/octet-stream")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set(client.SizeHeader, strconv.FormatInt(size, 10))
		h.Set("Trailer", client.ErrorTrailer)
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush() // the reader learns the size while it waits
		return flushing{w}
	})
	if err == nil {
		return
	}
	shape := asError(err)
	text, _ := json.Marshal(shape)
	if begun {
		w.Header().Set(client.ErrorTrailer, string(text))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(statusOf(shape.Kind))
	_, _ = w.Write(append(text, '\n'))
}

// flushing passes bytes on at once: whoever plays them waits for them.
type flushing struct{ http.ResponseWriter }

func (f flushing) Write(p []byte) (int, error) {
	n, err := f.ResponseWriter.Write(p)
	if err == nil {
		err = http.NewResponseController(f.ResponseWriter).Flush()
	}
	return n, err
}
