package cli

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"
)

// TestStdinCanBeInterrupted: an input that does not end does not keep run from ending.
func TestStdinCanBeInterrupted(t *testing.T) {
	r, w := io.Pipe()
	defer w.Close()
	ctx, cancel := context.WithCancel(t.Context())
	a := &app{in: r, err: io.Discard}
	ended := make(chan error, 1)
	go func() {
		_, err := a.readStdin(ctx, nil, false)
		ended <- err
	}()
	if _, err := w.Write([]byte("x")); err != nil { // it is being read
		t.Fatal(err)
	}
	cancel()
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("it still waits for more")
	}
}
