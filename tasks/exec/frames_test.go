package exec

import (
	"bytes"
	"strings"
	"testing"

	"github.com/shoal-os/shoal/dht/wire"
	"github.com/shoal-os/shoal/tasks/exec/pb"
	"github.com/shoal-os/shoal/tasks/job"
)

// quiet is a child that is not there, of which only what it says matters.
func quiet(t testing.TB, out *bytes.Buffer) (*runner, *Attempt) {
	t.Helper()
	p := &Pool{}
	r := &runner{pool: p, kind: job.Wasm, ready: make(chan struct{}), gone: make(chan struct{}), next: 1}
	a := newAttempt(p, Task{Stdout: out, Stderr: out})
	r.attempt = a
	return r, a
}

// FuzzReport: whatever a child says, its peer takes it or gives the child up.
func FuzzReport(f *testing.F) {
	var good bytes.Buffer
	for _, m := range []*pb.Report{
		{Report: &pb.Report_Ready{Ready: &pb.Ready{Lacks: []string{"this", "that"}}}},
		{Report: &pb.Report_Out{Out: &pb.Out{Data: []byte("hello")}}},
		{Report: &pb.Report_Prepared{Prepared: &pb.Prepared{Error: "no"}}},
		{Report: &pb.Report_Exit{Exit: &pb.Exit{Id: 1, Code: 3, Reason: "why"}}},
	} {
		var one bytes.Buffer
		for _, w := range []*bytes.Buffer{&one, &good} {
			if err := wire.WriteMsg(w, m, reportMax); err != nil {
				f.Fatal(err)
			}
		}
		f.Add(one.Bytes())
	}
	f.Add(good.Bytes())
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0x7f})
	f.Fuzz(func(t *testing.T, raw []byte) {
		var out bytes.Buffer
		r, a := quiet(t, &out)
		in := bytes.NewReader(raw)
		for {
			var m pb.Report
			if wire.ReadMsg(in, &m, reportMax) != nil || r.report(&m) != nil {
				break
			}
		}
		select {
		case <-a.Done():
			e := a.Exit()
			if u := e.Usage; u.CPU < 0 || u.Memory < 0 || u.Read < 0 || u.Written < 0 || wire.CleanText(e.Reason) != e.Reason {
				t.Errorf("%+v", e)
			}
		default:
		}
		if out.Len() > len(raw) {
			t.Error("output from nowhere")
		}
	})
}

func TestBadReports(t *testing.T) {
	ready := &pb.Report{Report: &pb.Report_Ready{Ready: &pb.Ready{}}}
	for name, list := range map[string][]*pb.Report{
		"empty":       {{}},
		"ready twice": {ready, ready},
		"other task":  {{Report: &pb.Report_Exit{Exit: &pb.Exit{Id: 2}}}},
		"twice":       {{Report: &pb.Report_Exit{Exit: &pb.Exit{Id: 1}}}, {Report: &pb.Report_Exit{Exit: &pb.Exit{Id: 1}}}},
		"output late": {{Report: &pb.Report_Exit{Exit: &pb.Exit{Id: 1}}}, {Report: &pb.Report_Out{Out: &pb.Out{Data: []byte("x")}}}},
		"negative":    {{Report: &pb.Report_Exit{Exit: &pb.Exit{Id: 1, Memory: -1}}}},
		"long":        {{Report: &pb.Report_Exit{Exit: &pb.Exit{Id: 1, Reason: strings.Repeat("x", reasonMax+1)}}}},
		"unasked":     {{Report: &pb.Report_Prepared{Prepared: &pb.Prepared{}}}},
	} {
		var out bytes.Buffer
		r, _ := quiet(t, &out)
		var err error
		for _, m := range list {
			err = r.report(m)
		}
		if err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// TestOutbox: small writes are gathered, large ones are cut, and order within a stream stays.
func TestOutbox(t *testing.T) {
	var sent bytes.Buffer
	o := newOutbox(&sent)
	want := map[bool][]byte{}
	say := func(stderr bool, n int) {
		b := bytes.Repeat([]byte{byte(n)}, n)
		want[stderr] = append(want[stderr], b...)
		o.output(stderr, b)
	}
	for i := range 2000 {
		say(i%7 == 0, i%50)
	}
	say(false, 3*outMax+5)
	o.report(&pb.Report{Report: &pb.Report_Exit{Exit: &pb.Exit{Id: 1}}})
	got := map[bool][]byte{}
	for {
		var m pb.Report
		if err := wire.ReadMsg(&sent, &m, reportMax); err != nil {
			t.Fatal(err)
		}
		if m.GetExit() != nil {
			break
		}
		got[m.GetOut().GetStderr()] = append(got[m.GetOut().GetStderr()], m.GetOut().GetData()...)
	}
	if !bytes.Equal(got[true], want[true]) || !bytes.Equal(got[false], want[false]) {
		t.Error("something is lost or out of order")
	}
}
