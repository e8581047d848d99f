package repair

import (
	"context"
	"math"
	"sync"
	"time"
)

// limiter is a token bucket: on the long run it lets rate units a second through, and burst at once.
type limiter struct {
	mu    sync.Mutex
	rate  float64 // units a second; 0 or less: no bound
	burst float64
	owed  float64 // units let through beyond what time has paid for
	at    time.Time
}

func newLimiter(rate, burst int64) *limiter {
	return &limiter{rate: float64(rate), burst: float64(burst), at: time.Now()}
}

// wait lets n units through, sooner or later.
func (l *limiter) wait(ctx context.Context, n int64) error {
	pause := l.take(n)
	if pause <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// take books n units and returns how long to wait for them.
func (l *limiter) take(n int64) time.Duration {
	if l.rate <= 0 {
		return 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.owed = max(0, l.owed-now.Sub(l.at).Seconds()*l.rate)
	l.at = now
	l.owed += float64(n)
	return time.Duration((l.owed - l.burst) / l.rate * float64(time.Second))
}

// meterSpan is over how long a meter looks back: what is older counts less and less.
const meterSpan = 30 * time.Second

// meter measures a rate.
type meter struct {
	mu  sync.Mutex
	sum float64 // decayed
	at  time.Time
}

func (m *meter) add(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.decay()
	m.sum += float64(n)
}

// rate is in units a second.
func (m *meter) rate() float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.decay()
	return m.sum / meterSpan.Seconds()
}

func (m *meter) decay() {
	now := time.Now()
	m.sum *= math.Exp(-float64(now.Sub(m.at)) / float64(meterSpan))
	m.at = now
}
