package pool

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
)

// TestClosedWhileItIsDone: what do runs uses what is the caller's, so do must not return in the middle of it, also when the pool closes;
// and what it has given up is not done any more.
func TestClosedWhileItIsDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &Pool{calls: make(chan func(), callsMax)}
		p.ctx, p.cancel = context.WithCancel(t.Context())
		let, ended := make(chan struct{}), make(chan error, 1)
		value := 0
		go func() { ended <- p.do(context.Background(), func() { <-let; value = 1 }) }()
		go func() { (<-p.calls)() }() // the pool's goroutine
		synctest.Wait()
		p.cancel()
		synctest.Wait()
		select {
		case err := <-ended:
			t.Errorf("it returned in the middle: %v", err)
			close(let)
			synctest.Wait()
		default:
			close(let)
			if err := <-ended; err != nil || value != 1 {
				t.Errorf("%d, %v", value, err)
			}
		}

		p.ctx, p.cancel = context.WithCancel(t.Context())
		go func() { ended <- p.do(context.Background(), func() { value = 2 }) }()
		synctest.Wait()
		p.cancel()
		if err := <-ended; !errors.Is(err, ErrClosed) {
			t.Errorf("%v", err)
		}
		if (<-p.calls)(); value == 2 {
			t.Error("it was done after all")
		}
	})
}
