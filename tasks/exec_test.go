package tasks

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/shoal-os/shoal/tasks/exec"
	"github.com/shoal-os/shoal/tasks/exec/wasm/wat"
	"github.com/shoal-os/shoal/tasks/job"
	"github.com/shoal-os/shoal/tasks/market"
)

// TestMain lets the test binary be a runner's child.
func TestMain(m *testing.M) {
	exec.Child()
	os.Exit(m.Run())
}

// withChildren gives a box real runners.
func withChildren(n int) option {
	return func(b *box) {
		p, err := exec.Open(exec.Config{Dir: filepath.Join(b.home, "exec"), Cores: n, AllowExec: true})
		if err != nil {
			b.t.Fatal(err)
		}
		b.runner, b.lends.Cores = Over(p), n
		b.closes = append(b.closes, p.Close)
	}
}

// program makes a command of a module.
func (b *box) program(raw []byte, args ...string) job.Command {
	return job.Command{Kind: job.Wasm, Module: b.put(raw), Args: args}
}

// small is for guests that need little.
var small = job.Resources{Memory: 16 << 20}

func TestRealGuests(t *testing.T) {
	t.Parallel()
	boxes := newPool(t, 3, withChildren(1))
	spec := job.Spec{Command: boxes[0].program(wat.Hello()), Split: job.Split{Kind: job.Count, Count: 20}, Resources: small}
	for _, r := range boxes[1].all(boxes[0].submit(spec).ID) {
		if r.State != market.Succeeded || text(r) != "hello\n" {
			t.Errorf("task %d: %v %q", r.Task, r.State, text(r))
		}
	}
	in := bytes.Repeat([]byte("0123456789abcde\n"), 40_000)
	spec = job.Spec{
		Command: boxes[0].program(wat.Cat()), Resources: small,
		Split: job.Split{Kind: job.Slices, File: boxes[0].put(in), Slice: 100_000, Lines: true},
	}
	command := boxes[0].program(wat.Cat())
	spec.Reduce = &command
	results := boxes[2].all(boxes[0].submit(spec).ID)
	if got := boxes[1].read(results[len(results)-1].Results[0].Stdout.File); !bytes.Equal(got, in) {
		t.Errorf("%d bytes of %d came back", len(got), len(in))
	}
	spec = job.Spec{Command: boxes[0].program(wat.Trap()), Resources: small}
	r := boxes[1].all(boxes[0].submit(spec).ID)[0]
	if r.State != market.Failed || r.Results[0].Reason == "" {
		t.Errorf("%+v", r)
	}
	t.Log(r.Results[0].Reason)
	// One that never ends is ended with its job.
	s := boxes[0].submit(job.Spec{Command: boxes[0].program(wat.Loop()), Resources: small})
	wait(t, "it runs", func() bool {
		info, err := boxes[0].Job(t.Context(), s.ID)
		return err == nil && info.State == Running
	})
	if err := boxes[2].Kill(t.Context(), s.ID, ""); err != nil {
		t.Error(err)
	}
	wait(t, "nobody holds it", func() bool {
		return !slices.ContainsFunc(boxes, func(b *box) bool { return len(b.Status().Held) > 0 })
	})
	// A module that cannot run here is refused with its reason.
	s = boxes[0].submit(job.Spec{Command: boxes[0].program([]byte("no module")), Resources: small})
	wait(t, "everybody says why not", func() bool {
		list, err := boxes[0].Why(t.Context(), s.ID, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range list {
			t.Log(r.Reason)
		}
		return true
	})
	// A native command.
	spec = job.Spec{Command: job.Command{Kind: job.Proc, Path: "sh", Args: []string{"-c", "echo $SHOAL_TASK; mkdir -p out; echo hi > out/f"}}, Resources: small}
	r = boxes[1].all(boxes[0].submit(spec).ID)[0]
	if r.State != market.Succeeded || text(r) != "0\n" || len(r.Results[0].Outputs) != 1 || string(r.Results[0].Outputs[0].Inline) != "hi\n" {
		t.Errorf("%+v", r.Results[0])
	}
}

// BenchmarkNoOps streams tasks that do nothing through four workers with one core each, under three stewards with real fsync.
func BenchmarkNoOps(b *testing.B) {
	for _, kind := range []string{"fake", "wasm"} {
		b.Run(kind, func(b *testing.B) {
			opts := []option{cores(1)}
			if kind == "wasm" {
				opts = []option{withChildren(1)}
			}
			boxes := newPool(b, 4, opts...)
			spec := job.Spec{Command: command("noop"), Split: job.Split{Kind: job.Count, Count: 50}, Resources: small}
			if kind == "wasm" {
				spec.Command = boxes[0].program(wat.Nothing())
			}
			boxes[0].all(boxes[0].submit(spec).ID) // warm
			spec.Split.Count = uint32(max(b.N, 1))
			b.ResetTimer()
			s := boxes[0].submit(spec)
			done := 0
			for ev, err := range boxes[0].Watch(b.Context(), s.ID) {
				if err != nil {
					b.Fatal(err)
				}
				done += len(ev.Closed)
			}
			b.StopTimer()
			b.ReportMetric(float64(done)/b.Elapsed().Seconds(), "tasks/s")
			info, err := boxes[0].Job(b.Context(), s.ID)
			if err != nil || done != b.N {
				b.Fatalf("%d tasks of %d, %v", done, b.N, err)
			}
			b.ReportMetric(float64(info.Retries), "retries")
		})
	}
}

// BenchmarkOneTask takes the time of jobs of one task that does nothing, from Submit to its result.
func BenchmarkOneTask(b *testing.B) {
	for _, kind := range []string{"fake", "wasm"} {
		b.Run(kind, func(b *testing.B) {
			opts := []option{cores(1)}
			if kind == "wasm" {
				opts = []option{withChildren(1)}
			}
			boxes := newPool(b, 4, opts...)
			spec := job.Spec{Command: command("noop"), Resources: small}
			if kind == "wasm" {
				spec.Command = boxes[0].program(wat.Nothing())
			}
			boxes[0].all(boxes[0].submit(spec).ID) // warm
			var took, entered []time.Duration
			b.ResetTimer()
			for range b.N {
				began := time.Now()
				s := boxes[0].submit(spec)
				entered = append(entered, time.Since(began))
				for _, err := range boxes[0].Watch(b.Context(), s.ID) {
					if err != nil {
						b.Fatal(err)
					}
				}
				took = append(took, time.Since(began))
			}
			b.StopTimer()
			for _, m := range []struct {
				name string
				list []time.Duration
			}{{"job", took}, {"submit", entered}} {
				slices.Sort(m.list)
				for _, q := range []int{50, 99} {
					b.ReportMetric(float64(m.list[min(len(m.list)*q/100, len(m.list)-1)].Microseconds())/1000, fmt.Sprintf("p%d-%s-ms", q, m.name))
				}
			}
		})
	}
}
