package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/shoal-os/shoal/node/api/client"
)

// sliceBytes is how much of the file one task hashes.
const sliceBytes = 64 << 20

// hashTogether has four peers compute the digest of each slice of a file of which one peer holds the only copy.
func (b *tasksBench) hashTogether(ctx context.Context) (sample, error) {
	if err := b.ready(ctx); err != nil {
		return sample{}, err
	}
	path, err := b.hashed()
	if err != nil {
		return sample{}, err
	}
	want, err := sliceSums(path, int64(b.sizes.split))
	if err != nil {
		return sample{}, err
	}
	at := fmt.Sprintf("/hashed-%d", time.Now().UnixNano())
	if _, err := b.crew.run(ctx, b.crew.mates[0], "put", "--copies", "1", path, at); err != nil {
		return sample{}, err
	}
	before := b.cpu()
	began := time.Now()
	s, err := b.submit(ctx, b.native("sha256sum"), func(r *client.JobRequest) {
		r.Split = &client.JobSplit{Slice: &client.JobSource{Path: at}, Size: sliceBytes, Bytes: true}
	})
	if err != nil {
		return sample{}, err
	}
	if _, err := finished(ctx, b.asker(), s.ID); err != nil {
		return sample{}, err
	}
	elapsed := time.Since(began).Seconds()
	out := sample{rate: float64(b.sizes.split) / 1e6 / elapsed, seconds: elapsed, send: result{CPU: b.cpu() - before}}
	var moved, away int64
	workers := map[string]int{}
	err = b.asker().JobResults(ctx, s.ID, 0, 0, func(r client.TaskResult) error {
		if got, _, _ := strings.Cut(string(r.Stdout.Inline), " "); r.Task >= len(want) || got != want[r.Task] {
			return fmt.Errorf("slice %d: %q is not what one machine gives", r.Task, got)
		}
		moved += r.Usage.Fetched
		if r.Worker != b.crew.mates[0].name {
			away += min(sliceBytes, int64(b.sizes.split)-int64(r.Task)*sliceBytes)
		}
		workers[r.Worker]++
		return nil
	})
	out.note = fmt.Sprintf("as one machine gives it; slices by peer %v; moved %.2f of the %.0f MB that were not there", workers, float64(moved)/float64(max(away, 1)), float64(away)/1e6)
	return out, err
}
