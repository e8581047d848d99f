package agenda

import (
	"slices"
	"testing"
	"time"
)

func TestOrder(t *testing.T) {
	var a Agenda
	var got []string
	say := func(s string) func() { return func() { got = append(got, s+"@"+a.Now.String()) } }
	a.After(2*time.Second, say("late"))
	a.After(time.Second, func() {
		say("first")()
		a.After(0, say("now"))
		a.After(-time.Hour, say("never back"))
		a.After(time.Hour, say("beyond"))
	})
	a.After(time.Second, say("second"))
	a.Run(time.Minute)
	want := []string{"first@1s", "second@1s", "now@1s", "never back@1s", "late@2s"}
	if !slices.Equal(got, want) || a.Now != time.Minute || a.Len() != 1 {
		t.Errorf("%q at %v, %d left", got, a.Now, a.Len())
	}
	a.Run(time.Second)
	if a.Now != time.Minute || a.Next(time.Hour) || !a.Next(2*time.Hour) || got[5] != "beyond@1h0m1s" {
		t.Errorf("%q at %v", got, a.Now)
	}
}
