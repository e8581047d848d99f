package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
)

const (
	// SizeHeader carries the bytes of a file that is being read.
	SizeHeader = "Shoal-Size"
	// ErrorTrailer carries the JSON of an [Error] that ended it early.
	ErrorTrailer = "Shoal-Error"
)

// CatRequest is the query of GET /v1/cat.
type CatRequest struct {
	Link    string  // a shoal: link or a bare CID
	Path    string  // the file inside; empty when the link names a file
	Timeout float64 // seconds; 0 is the peer's default
}

// Cat writes the file that req names to w as it arrives. begin, which may be
// nil, is called before with the file's size in bytes. An error of w is returned
// as it is.
func (c *Client) Cat(ctx context.Context, req CatRequest, w io.Writer, begin func(size int64)) error {
	q := url.Values{"link": {req.Link}}
	if req.Path != "" {
		q.Set("path", req.Path)
	}
	if req.Timeout > 0 {
		q.Set("timeout_s", strconv.FormatFloat(req.Timeout, 'f', -1, 64))
	}
	return c.download(ctx, "/v1/cat?"+q.Encode(), w, begin)
}

// download writes the bytes that an answer consists of to w.
func (c *Client) download(ctx context.Context, path string, w io.Writer, begin func(size int64)) error {
	resp, err := c.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if begin != nil {
		size, err := strconv.ParseInt(resp.Header.Get(SizeHeader), 10, 64)
		if err != nil {
			size = -1
		}
		begin(size)
	}
	out := &writeError{w: w}
	if _, err := io.Copy(out, resp.Body); out.err != nil {
		return out.err
	} else if err != nil {
		return c.lost(ctx, err)
	}
	text := resp.Trailer.Get(ErrorTrailer)
	if text == "" {
		return nil
	}
	failed := new(Error)
	if err := json.Unmarshal([]byte(text), failed); err != nil {
		return fmt.Errorf("api: cat: %w", err)
	}
	return failed
}

// writeError tells the writer's errors from the reader's.
type writeError struct {
	w   io.Writer
	err error
}

func (w *writeError) Write(p []byte) (n int, err error) {
	n, w.err = w.w.Write(p)
	return n, w.err
}
