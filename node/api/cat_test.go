package api

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/shoal-os/shoal/node/api/client"
)

// Cat gives "hello" for the path "whole", and fails elsewhere.
func (f *fake) Cat(_ context.Context, req client.CatRequest, begin func(int64) io.Writer) error {
	switch req.Path {
	case "whole":
		_, err := io.WriteString(begin(5), "hello")
		return err
	case "part":
		if _, err := io.WriteString(begin(5), "he"); err != nil {
			return err
		}
		return client.Errorf(client.KindNotFound, "is it running?", "nobody sent\nthe rest")
	}
	return client.Errorf(client.KindInvalid, "", "%s is a folder, said %s after %v s", req.Path, req.Link, req.Timeout)
}

func TestCat(t *testing.T) {
	for _, network := range []Network{NetworkUnix, NetworkTCP} {
		_, c := serve(t, &fake{}, network)
		cat := func(path string, w io.Writer) (size int64, err error) {
			size = -2
			err = c.Cat(t.Context(), client.CatRequest{Link: "a&b", Path: path, Timeout: 1.5}, w, func(n int64) { size = n })
			return size, err
		}
		var out bytes.Buffer
		if size, err := cat("whole", &out); err != nil || size != 5 || out.String() != "hello" {
			t.Errorf("%d %q %v", size, out.String(), err)
		}
		out.Reset()
		size, err := cat("part", &out)
		var e *client.Error
		if !errors.As(err, &e) || e.Kind != client.KindNotFound || e.Hint != "is it running?" || size != 5 || out.String() != "he" {
			t.Errorf("%d %q %v", size, out.String(), err)
		}
		size, err = cat("dir", &out)
		if client.KindOf(err) != client.KindInvalid || !strings.Contains(err.Error(), "a&b after 1.5 s") || size != -2 {
			t.Errorf("%d %v", size, err)
		}
		broken := errors.New("pipe")
		if _, err := cat("whole", failing{broken}); !errors.Is(err, broken) {
			t.Errorf("%v", err)
		}
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }
