package wire

import (
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
)

func TestSlots(t *testing.T) {
	s := NewSlots(2, 3)
	for k, step := range []struct {
		peer  string
		leave bool
		ok    bool
	}{
		{"a", false, true}, {"a", false, true}, {"a", false, false}, {"b", false, true}, {"b", false, false}, {"c", false, false},
		{"a", true, true}, {"c", false, true}, {"a", false, false}, {"b", true, true}, {"a", false, true},
	} {
		if step.leave {
			s.Leave(peer.ID(step.peer))
		} else if ok := s.Enter(peer.ID(step.peer)); ok != step.ok {
			t.Errorf("step %d: %v", k, ok)
		}
	}
	for _, p := range []string{"a", "a", "c"} {
		s.Leave(peer.ID(p))
	}
	if len(s.taken) != 0 || s.sum != 0 {
		t.Errorf("%v, %d are left", s.taken, s.sum)
	}
}
