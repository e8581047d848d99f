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

func newLimiter(bytesPerSecond int64) limiter {
	if bytesPerSecond <= 0 {
		return limiter{}
	}
	return limiter{rate.NewLimiter(rate.Limit(bytesPerSecond), limitBurst)}
}

// wait blocks until n bytes may pass on a connection that is not exempt.
func (l limiter) wait(ctx context.Context, n int, exempt bool) error {
	if l.bucket == nil || exempt {
		return nil
	}
	return l.bucket.WaitN(ctx, min(n, limitBurst))
}

// local reports whether a connection stays on this machine or its LAN.
func local(c network.Conn) bool {
	return manet.IsPrivateAddr(c.RemoteMultiaddr())
}
