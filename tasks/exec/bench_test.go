package exec

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/shoal-os/shoal/tasks/exec/wasm/wat"
	"github.com/shoal-os/shoal/tasks/job"
)

// Each subject stands beside its floor: `go test -run '^$' -bench . ./tasks/exec`.

func benchTasks(b *testing.B, workers int, task Task) {
	p := openPool(b, func(c *Config) { c.AllowExec = true })
	dir := b.TempDir()
	next := make(chan int)
	var wait sync.WaitGroup
	for range workers {
		wait.Go(func() {
			for i := range next {
				t := task
				t.Dir = filepath.Join(dir, strconv.Itoa(i))
				a, err := p.Start(t)
				if err != nil {
					b.Error(err)
					return
				}
				<-a.Done()
				if e := a.Exit(); e.Code != 0 || e.Reason != "" {
					b.Errorf("%+v", e)
					return
				}
				if t.Kind == job.Proc {
					_ = os.RemoveAll(t.Dir)
				}
			}
		})
	}
	for i := range 2 * workers { // warm
		next <- -1 - i
	}
	for i := 0; b.Loop(); i++ {
		next <- i
	}
	close(next)
	wait.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tasks/s")
}

func benchWasm(b *testing.B, workers int) {
	task, _, _ := wasmTask(b, wat.Nothing())
	task.Stdout, task.Stderr = nil, nil
	benchTasks(b, workers, task)
}

func BenchmarkWasm1(b *testing.B) { benchWasm(b, 1) }
func BenchmarkWasm4(b *testing.B) { benchWasm(b, 4) }

// BenchmarkWasmFloor is what wazero takes in this very process, with the module compiled before.
func BenchmarkWasmFloor(b *testing.B) {
	ctx := context.Background()
	rt := wazero.NewRuntime(ctx)
	defer rt.Close(ctx)
	wasi_snapshot_preview1.MustInstantiate(ctx, rt)
	code, err := rt.CompileModule(ctx, wat.Nothing())
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		m, err := rt.InstantiateModule(ctx, code, wazero.NewModuleConfig().WithName(""))
		if err != nil {
			b.Fatal(err)
		}
		m.Close(ctx)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tasks/s")
}

func benchProc(b *testing.B, workers int) {
	path, err := exec.LookPath("true")
	if err != nil {
		b.Skip("there is no true here")
	}
	task, _, _ := shell(b, "")
	task.Path, task.Args, task.Stdout, task.Stderr = path, nil, nil, nil
	benchTasks(b, workers, task)
}

func BenchmarkProc1(b *testing.B) { benchProc(b, 1) }
func BenchmarkProc4(b *testing.B) { benchProc(b, 4) }

func benchProcFloor(b *testing.B, workers int) {
	path, err := exec.LookPath("true")
	if err != nil {
		b.Skip("there is no true here")
	}
	next := make(chan int)
	var wait sync.WaitGroup
	for range workers {
		wait.Go(func() {
			for range next {
				if err := exec.Command(path).Run(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	for b.Loop() {
		next <- 0
	}
	close(next)
	wait.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tasks/s")
}

func BenchmarkProcFloor1(b *testing.B) { benchProcFloor(b, 1) }
func BenchmarkProcFloor4(b *testing.B) { benchProcFloor(b, 4) }
