package api

import (
	"net"
	"testing"

	"github.com/shoal-os/shoal/dht/ident"
)

// A connection that comes when the API has ended is closed: nobody would take it, and who asks would wait.
func TestMembersThatComeAfterTheEnd(t *testing.T) {
	m := ServeMembers(&fake{})
	if err := m.Shut(); err != nil {
		t.Fatal(err)
	}
	for range 64 { // there was room in the queue, too
		near, far := net.Pipe()
		m.Handle(far, func() ident.Role { return ident.RoleAdmin })
		select {
		case c := <-m.queue:
			c.Close()
			t.Fatal("a connection waits to be taken by nobody")
		default:
		}
		if _, err := near.Read(make([]byte, 1)); err == nil {
			t.Fatal("it answers")
		}
	}
	if m.open != 0 {
		t.Errorf("%d are counted as open", m.open)
	}
}
