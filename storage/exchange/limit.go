package exchange

import (
	"context"

	"github.com/libp2p/go-libp2p/core/network"
	manet "github.com/multiformats/go-multiaddr/net"
	"golang.org/x/time/rate"
)

// limiter bounds bytes a second over all streams of one direction.
type limiter struct{ bucket *rate.Limiter }

// limitBurst is what may pass at once, in bytes: the largest unit that is waited for.
const limitBurst = 4 << 20

// newLimiter makes a limiter; 0 is no bound.
func newLimiter(bytesPerSecond int64) limiter {
	l := limiter{rate.NewLimiter(rate.Inf, limitBurst)}
	l.set(bytesPerSecond)
	return l
}

// set changes the bound, for whoever comes to wait from now on.
func (l limiter) set(bytesPerSecond int64) {
	if bytesPerSecond <= 0 {
		l.bucket.SetLimit(rate.Inf)
		return
	}
	l.bucket.SetLimit(rate.Limit(bytesPerSecond))
}

// wait blocks until n bytes may pass on a connection that is not exempt.
func (l limiter) wait(ctx context.Context, n int, exempt bool) error {
	if l.bucket == nil || exempt || l.bucket.Limit() == rate.Inf {
		return nil
	}
	return l.bucket.WaitN(ctx, min(n, limitBurst))
}

// local reports whether a connection stays on this machine or its LAN.
func local(c network.Conn) bool {
	return manet.IsPrivateAddr(c.RemoteMultiaddr())
}
