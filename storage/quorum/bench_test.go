package quorum

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// counter is the least a machine can be.
type counter struct{ n uint64 }

func (c *counter) Apply(Entry) []byte {
	c.n++
	return binary.BigEndian.AppendUint64(nil, c.n)
}
func (c *counter) Snapshot() ([]byte, error) { return binary.BigEndian.AppendUint64(nil, c.n), nil }
func (c *counter) Restore(b []byte) error {
	c.n = binary.BigEndian.Uint64(b)
	return nil
}

// measure calls f again and again from several goroutines, and returns the time of each call and of all.
func measure(writers, each int, f func() error) (times []time.Duration, all time.Duration, err error) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	start := time.Now()
	for range writers {
		wg.Go(func() {
			own := make([]time.Duration, 0, each)
			for range each {
				t := time.Now()
				if e := f(); e != nil {
					mu.Lock()
					err = e
					mu.Unlock()
					return
				}
				own = append(own, time.Since(t))
			}
			mu.Lock()
			defer mu.Unlock()
			times = append(times, own...)
		})
	}
	wg.Wait()
	slices.Sort(times)
	return times, time.Since(start), err
}

// floor is a bare group commit: one goroutine appends the frames of all who wait, and syncs once.
type floor struct {
	queue chan floorWrite
	file  *os.File
}

type floorWrite struct {
	frame []byte
	done  chan struct{}
}

func newFloor(b *testing.B) *floor {
	f, err := os.Create(filepath.Join(b.TempDir(), "floor"))
	if err != nil {
		b.Fatal(err)
	}
	fl := &floor{queue: make(chan floorWrite, 4096), file: f}
	go func() {
		for w := range fl.queue {
			waiting := []floorWrite{w}
			for n := len(fl.queue); n > 0; n-- {
				waiting = append(waiting, <-fl.queue)
			}
			var buf []byte
			for _, w := range waiting {
				buf = append(buf, w.frame...)
			}
			_, _ = f.Write(buf)
			_ = f.Sync()
			for _, w := range waiting {
				close(w.done)
			}
		}
	}()
	b.Cleanup(func() {
		close(fl.queue)
		_ = f.Close()
	})
	return fl
}

func (f *floor) write(frame []byte) error {
	w := floorWrite{frame, make(chan struct{})}
	f.queue <- w
	<-w.done
	return nil
}

func percentile(times []time.Duration, p int) float64 {
	return float64(times[len(times)*p/100].Microseconds())
}

// BenchmarkPropose holds three voters on loopback, each with its own log and real fsyncs on one disk, against the bare group commit of
// one log, in the same run and turn by turn: the latency of one proposer, and the throughput of many.
func BenchmarkPropose(b *testing.B) {
	for _, writers := range []int{1, 16, 256} {
		b.Run(fmt.Sprint("writers=", writers), func(b *testing.B) {
			_, groups := trio(b, "counter")
			leader := groups[0]
			fl := newFloor(b)
			frame := make([]byte, 128)
			each := max(1, 4096/writers)
			if writers == 1 {
				each = 512
			}
			var ours, bare []time.Duration
			var ourTime, bareTime time.Duration
			for b.Loop() {
				t, all, err := measure(writers, each, func() error { return fl.write(frame) })
				bare, bareTime = append(bare, t...), bareTime+all
				if err != nil {
					b.Fatal(err)
				}
				t, all, err = measure(writers, each, func() error {
					_, err := leader.Propose(context.Background(), frame)
					return err
				})
				ours, ourTime = append(ours, t...), ourTime+all
				if err != nil {
					b.Fatal(err)
				}
			}
			slices.Sort(ours)
			slices.Sort(bare)
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(percentile(ours, 50), "p50-µs")
			b.ReportMetric(percentile(ours, 99), "p99-µs")
			b.ReportMetric(percentile(bare, 50), "floor-p50-µs")
			b.ReportMetric(percentile(bare, 99), "floor-p99-µs")
			b.ReportMetric(float64(len(ours))/ourTime.Seconds(), "proposals/s")
			b.ReportMetric(float64(len(bare))/bareTime.Seconds(), "floor/s")
		})
	}
}

// BenchmarkManyGroups is the throughput of 256 proposers on 64 groups that share three logs.
func BenchmarkManyGroups(b *testing.B) {
	peers, groups := trio(b, "counter")
	for i := range 63 {
		var ids []peer.ID
		for _, p := range peers {
			ids = append(ids, p.host.ID())
		}
		g, err := peers[0].Create(b.Context(), GroupID{3, byte(i)}, "counter", ids)
		if err != nil {
			b.Fatal(err)
		}
		groups = append(groups, g)
	}
	groups = append(groups[:1], groups[3:]...) // all as their leader has them
	var next atomic.Int64
	var times []time.Duration
	var all time.Duration
	for b.Loop() {
		t, d, err := measure(256, 16, func() error {
			_, err := groups[next.Add(1)%int64(len(groups))].Propose(context.Background(), make([]byte, 128))
			return err
		})
		if err != nil {
			b.Fatal(err)
		}
		times, all = append(times, t...), all+d
	}
	slices.Sort(times)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(percentile(times, 50), "p50-µs")
	b.ReportMetric(float64(len(times))/all.Seconds(), "proposals/s")
}

// BenchmarkIdleGroups says what a thousand groups of three cost their peers while nothing happens.
func BenchmarkIdleGroups(b *testing.B) {
	const n = 1000
	peers, groups := trio(b, "counter")
	for b.Loop() {
	}
	before := memory()
	var ids = func() (out []GroupID) {
		for i := range n {
			out = append(out, GroupID{2, byte(i), byte(i >> 8)})
		}
		return out
	}()
	start := time.Now()
	var voters = groups[0].Status().Members
	for _, id := range ids {
		if _, err := peers[0].Create(b.Context(), id, "counter", []peer.ID{voters[0].Peer, voters[1].Peer, voters[2].Peer}); err != nil {
			b.Fatal(err)
		}
	}
	made := time.Since(start)
	quiet := func() bool {
		for _, p := range peers {
			for _, g := range p.Groups() {
				if !g.Status().Quiet {
					return false
				}
			}
		}
		return true
	}
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for end := time.Now().Add(30 * time.Second); !quiet() && time.Now().Before(end); {
		<-ticker.C
	}
	if !quiet() {
		b.Fatal("they do not fall quiet")
	}
	used := memory() - before
	sent, cpu := parcels(peers), processor()
	const watch = 5 * time.Second
	ticker.Reset(watch)
	<-ticker.C
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(made.Milliseconds())/n, "ms/create")
	b.ReportMetric(float64(used)/(3*n), "B/replica")
	b.ReportMetric(float64(parcels(peers)-sent)/watch.Seconds(), "messages/s")
	b.ReportMetric(100*float64(processor()-cpu)/float64(watch), "%core")
}

func memory() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func parcels(peers []*realPeer) (n int64) {
	for _, p := range peers {
		n += p.sent.Load()
	}
	return n
}
