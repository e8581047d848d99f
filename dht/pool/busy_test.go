package pool

import (
	"testing"

	"github.com/libp2p/go-libp2p/p2p/net/swarm"
)

// TestJoinDialsAtOnce: who could not reach the inviter just now, and tries again, is not told to wait.
func TestJoinDialsAtOnce(t *testing.T) {
	a, b := newBox(t, "anna"), newBox(t, "ben")
	ticket := a.invite(InviteOptions{})
	for range 10 { // libp2p would dial it again in a minute and a half
		for _, addr := range ticket.Addrs {
			b.host.Network().(*swarm.Swarm).Backoff().AddBackoff(a.self.ID, addr)
		}
	}
	if err := b.tryJoin(ticket, JoinOptions{}); err != nil {
		t.Error(err)
	}
}
