// Package wasm runs WebAssembly modules for WASI preview 1 in a runner's child, one at a time, with wazero's compiler.
//
// A guest sees its arguments, its environment, its inputs read-only below /in, what it writes below /out, the clocks and
// random bytes; there is nothing else: no network and no other files. Memory, and output of all kinds together, are bounded
// here; time is not: a guest that does not stop is stopped from outside, by signal, which is why it must have the process to
// itself.
//
// While a guest runs, Go's collector must not: to stop the world it would wait for compiled code that never yields, and all
// of the process with it, the goroutine that hears the peer included. So it is off (GOGC=off), and called between tasks and
// from within the guest's own calls of the host, where nothing is to be waited for.
package wasm

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strings"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"github.com/tetratelabs/wazero/sys"

	"github.com/shoal-os/shoal/tasks/exec/pb"
)

const (
	// moduleMax bounds a module, in bytes.
	moduleMax = 128 << 20
	// loadedMax is how many modules a child keeps in memory.
	loadedMax = 8
	// loadedBytes is how many bytes of modules it keeps, if there is more than one.
	loadedBytes = 256 << 20
	// diskMax is how many bytes of compiled code are kept on disk.
	diskMax = 2 << 30
	// memoryMax is what a module can address at all, in bytes.
	memoryMax = 1 << 32
	// garbageMax is how much garbage is left lying before it is collected, in bytes.
	garbageMax = 64 << 20
	// breathEvery is how many calls of the host pass between two looks at the garbage.
	breathEvery = 256
	// codeTrap is the exit code of a guest that trapped.
	codeTrap = 134
	// traceMax bounds a trap's stack trace on standard error, in bytes.
	traceMax = 4 << 10
)

// Engine holds the modules of one child. It is not safe for concurrent use.
type Engine struct {
	dir    string
	out    func(stderr bool, p []byte)
	loaded []*module // the one that was used last is last
	arena  arena
	live   uint64 // bytes of heap after the last collection
	calls  int    // of the host, since the last look at the garbage
	heap   []metrics.Sample
}

// module is one that is ready to be instantiated. Each has a runtime of its own, so that all of it goes with it.
type module struct {
	id   string
	size int64
	rt   wazero.Runtime
	code wazero.CompiledModule
}

// New makes an engine that keeps compiled code below dir, and gives what guests write to out, which must not keep it.
func New(dir string, out func(stderr bool, p []byte)) *Engine {
	return &Engine{dir: filepath.Join(dir, "wasm"), out: out, heap: []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}}
}

// Prepare compiles the module at path, whose name is id, unless that is done already, and keeps its code on disk.
func (e *Engine) Prepare(path, id string) error {
	_, err := e.load(path, id)
	return err
}

// load returns a module that is ready.
func (e *Engine) load(path, id string) (*module, error) {
	for i, m := range e.loaded {
		if m.id == id {
			e.loaded = append(append(e.loaded[:i:i], e.loaded[i+1:]...), m)
			return m, nil
		}
	}
	limitData(compileMemory)
	debug.SetGCPercent(100) // no guest runs
	defer e.collect()
	defer debug.SetGCPercent(-1)
	m, err := e.compile(path, id)
	if err != nil {
		return nil, err
	}
	e.loaded = append(e.loaded, m)
	total := int64(0)
	for i := len(e.loaded) - 1; i >= 0; i-- {
		total += e.loaded[i].size
		if n := len(e.loaded) - i; n > loadedMax || n > 1 && total > loadedBytes {
			for _, old := range e.loaded[:i+1] {
				_ = old.rt.Close(context.Background())
			}
			e.loaded = slices.Delete(e.loaded, 0, i+1)
			break
		}
	}
	return m, nil
}

// compile reads, checks and compiles a module, or takes its code from disk.
func (e *Engine) compile(path, id string) (_ *module, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("its bytes are not here: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() > moduleMax {
		return nil, fmt.Errorf("it has %d bytes; at most %d are possible", info.Size(), moduleMax)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("its bytes are not here: %w", err)
	}
	cache, err := wazero.NewCompilationCacheWithDir(e.place(id))
	if err != nil {
		return nil, fmt.Errorf("no place for its code: %w", err)
	}
	ctx := experimental.WithCompilationWorkers(context.Background(), runtime.GOMAXPROCS(0))
	rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigCompiler().WithCompilationCache(cache).WithCloseOnContextDone(false))
	defer func() {
		if err != nil {
			_ = rt.Close(ctx)
		}
	}()
	if _, err := wasi_snapshot_preview1.Instantiate(ctx, rt); err != nil {
		return nil, fmt.Errorf("wasi: %w", err)
	}
	code, err := rt.CompileModule(ctx, raw)
	if err != nil {
		return nil, fmt.Errorf("it is no WebAssembly module that can run: %s", firstLine(err.Error()))
	}
	if err := runnable(code); err != nil {
		return nil, err
	}
	e.prune(id)
	return &module{id: id, size: info.Size(), rt: rt, code: code}, nil
}

// runnable reports why a module that is valid cannot run here.
func runnable(code wazero.CompiledModule) error {
	if _, ok := code.ExportedFunctions()["_start"]; !ok {
		return errors.New("it has no _start: it is a library, not a program for WASI preview 1")
	}
	for _, f := range code.ImportedFunctions() {
		if m, name, _ := f.Import(); m != wasi_snapshot_preview1.ModuleName {
			return fmt.Errorf("it needs %.80q of %.80q, which nobody gives it: only WASI preview 1 is here", name, m)
		}
	}
	if len(code.ImportedMemories()) > 0 {
		return errors.New("it needs a memory of somebody else's")
	}
	return nil
}

// place is the folder of one module's compiled code.
func (e *Engine) place(id string) string {
	sum := sha256.Sum256([]byte(id))
	return filepath.Join(e.dir, hex.EncodeToString(sum[:16]))
}

// prune marks a module's code as used now and removes what was not used for longest while there is too much of it. What
// another child reads just now it has open or will compile again.
func (e *Engine) prune(id string) {
	now := time.Now()
	_ = os.Chtimes(e.place(id), now, now)
	entries, err := os.ReadDir(e.dir)
	if err != nil {
		return
	}
	type folder struct {
		path string
		used time.Time
		size int64
	}
	var all []folder
	total := int64(0)
	for _, d := range entries {
		info, err := d.Info()
		if err != nil {
			continue
		}
		f := folder{filepath.Join(e.dir, d.Name()), info.ModTime(), 0}
		_ = filepath.WalkDir(f.path, func(_ string, d os.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				if info, err := d.Info(); err == nil {
					f.size += info.Size()
				}
			}
			return nil
		})
		total += f.size
		all = append(all, f)
	}
	slices.SortFunc(all, func(a, b folder) int { return a.used.Compare(b.used) })
	for _, f := range all {
		if total <= diskMax || f.path == e.place(id) {
			return
		}
		if os.RemoveAll(f.path) == nil {
			total -= f.size
		}
	}
}

// Run runs one task to its end. Id and processor time are the caller's to fill in.
func (e *Engine) Run(t *pb.Task) *pb.Exit {
	m, err := e.load(t.Module, t.ModuleId)
	if err != nil {
		// What this machine's files refuse is not the module's fault; what is wrong with that, any machine would say.
		return &pb.Exit{Code: codeTrap, Reason: "it cannot run here: " + err.Error(), Fault: errors.As(err, new(*fs.PathError))}
	}
	limitData(uint64(t.Memory) + dataSlack)
	g := &guest{engine: e, task: t, room: t.Output}
	mem := &memory{arena: &e.arena, limit: uint64(min(t.Memory, memoryMax))}
	exit, err := g.run(m, mem)
	g.close()
	mem.Free()
	if err != nil {
		exit = g.failed(err, mem)
	}
	if mem.refused && exit.Reason == "" && exit.Code != 0 {
		exit.Reason = fmt.Sprintf("it asked for more memory than its limit of %d bytes and ended with exit code %d", t.Memory, exit.Code)
	}
	exit.Memory, exit.Read, exit.Written = int64(mem.peak), g.read, g.written
	e.breathe(1)
	return exit
}

// run instantiates the module, which runs it.
func (g *guest) run(m *module, mem *memory) (exit *pb.Exit, err error) {
	defer func() {
		// What is wrong before the guest's first instruction comes as a panic.
		switch r := recover().(type) {
		case nil:
		case error:
			err = r
		default:
			panic(r)
		}
	}()
	ctx := experimental.WithMemoryAllocator(context.Background(), mem)
	var in api.Module
	in, err = m.rt.InstantiateModule(ctx, m.code, g.config())
	if in != nil {
		_ = in.Close(ctx)
	}
	var code *sys.ExitError
	switch {
	case err == nil:
		return &pb.Exit{}, nil
	case errors.As(err, &code):
		return &pb.Exit{Code: int32(code.ExitCode())}, nil
	}
	return nil, err
}

// failed says in words why a guest did not end by itself.
func (g *guest) failed(err error, mem *memory) *pb.Exit {
	exit := &pb.Exit{Code: codeTrap}
	var limit *limitError
	switch {
	case errors.As(err, &limit):
		exit.Code, exit.Reason = codeKilled, limit.text
		return exit
	case mem.refused && mem.peak == 0:
		exit.Reason = fmt.Sprintf("it begins with more memory than its limit of %d bytes", g.task.Memory)
		return exit
	}
	text := err.Error()
	_, after, found := strings.Cut(text, "wasm error: ")
	if !found {
		after = strings.TrimPrefix(text, "module[] function[_start] failed: ")
	}
	exit.Reason = "it trapped: " + firstLine(after)
	if mem.refused {
		exit.Reason += ", after it was refused more memory than its limit"
	}
	if _, trace, found := strings.Cut(text, "wasm stack trace:"); found {
		g.engine.out(true, []byte(("trap: " + firstLine(after) + trace)[:min(traceMax, len("trap: "+firstLine(after)+trace))]+"\n"))
	}
	return exit
}

// breathe collects garbage if there is much. It may be called wherever the guest's compiled code is not running.
func (e *Engine) breathe(calls int) {
	if e.calls += calls; e.calls < breathEvery {
		return
	}
	e.calls = 0
	metrics.Read(e.heap)
	if e.heap[0].Value.Uint64() > e.live+garbageMax {
		e.collect()
	}
}

func (e *Engine) collect() {
	runtime.GC()
	metrics.Read(e.heap)
	e.live = e.heap[0].Value.Uint64()
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(strings.TrimSpace(s), "\n")
	return strings.TrimSpace(s)
}
