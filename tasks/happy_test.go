package tasks

import (
	"fmt"
	"testing"
	"time"

	"github.com/shoal-os/shoal/tasks/market"
)

func TestThreePeersRunAJob(t *testing.T) {
	t.Parallel()
	boxes := newPool(t, 3)
	began := time.Now()
	s := boxes[0].submit(count(50, "task"))
	t.Logf("submitted after %v, stewards %d, spare %d", time.Since(began), len(s.Stewards), s.Spare)
	if len(s.Stewards) != 3 || s.Spare != 1 {
		t.Errorf("%d stewards, %d to spare", len(s.Stewards), s.Spare)
	}
	results := boxes[0].all(s.ID)
	t.Logf("all results after %v", time.Since(began))
	if len(results) != 50 {
		t.Fatalf("%d results", len(results))
	}
	for i, r := range results {
		if r.Task != i || r.State != market.Succeeded || string(r.Results[0].Stdout.Inline) != fmt.Sprintf("task %d of 50\n", i) {
			t.Errorf("task %d: %v %v %q", i, r.Task, r.State, r.Results[0].Stdout.Inline)
		}
	}
	for _, b := range boxes {
		info, err := b.Job(t.Context(), s.ID)
		if err != nil || info.State != Done || info.Progress.Done != 50 {
			t.Errorf("%s: %v %+v", b.self.Name, err, info)
		}
	}
}
