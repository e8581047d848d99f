package cli

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/shoal-os/shoal/node/api/client"
)

func TestWhereTheProgramBegins(t *testing.T) {
	root := newRoot(&app{})
	for _, c := range []struct{ args, want string }{
		{"run x.wasm -n 3", "run -- x.wasm -n 3"},
		{"run --cores 2 x.wasm -n", "run --cores 2 -- x.wasm -n"},
		{"run --cores=2 -e A=b.wasm x.wasm -n", "run --cores=2 -e A=b.wasm -- x.wasm -n"},
		{"--home h run -d x.wasm -- -n", "--home h run -d -- x.wasm -- -n"},
		{"run --in data.wasm x.wasm", "run --in data.wasm -- x.wasm"},
		{"run -- sort -r", "run -- sort -r"},
		{"run sort x.wasm", "run sort x.wasm"}, // an error, later
		{"map /photos -o out x.wasm -q {}", "map /photos -o out -- x.wasm -q {}"},
		{"map a.wasm b.wasm -- sha256sum", "map a.wasm b.wasm -- sha256sum"},
		{"map --slice 64KiB book --reduce sum.wasm count.wasm", "map --slice 64KiB book --reduce sum.wasm -- count.wasm"},
		{"share x.wasm", "share x.wasm"},
		{"nonsense x.wasm", "nonsense x.wasm"},
		{"", ""},
	} {
		if got := strings.Join(withDash(root, strings.Fields(c.args)), " "); got != c.want {
			t.Errorf("%q became %q, want %q", c.args, got, c.want)
		}
	}
}

func TestSplitWords(t *testing.T) {
	for text, want := range map[string][]string{
		"":                           nil,
		"  a  b\tc ":                 {"a", "b", "c"},
		`sum.wasm 'a b' "c \" d" \ `: {"sum.wasm", "a b", `c " d`, " "},
		`a''b ""`:                    {"ab", ""},
		`'\'`:                        {`\`},
	} {
		if got, err := splitWords(text); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q is %q, %v", text, got, err)
		}
	}
	for _, text := range []string{`"a`, `a'`, `a\`} {
		if got, err := splitWords(text); err == nil {
			t.Errorf("%q was taken for %q", text, got)
		}
	}
}

func TestWhatTasksNeed(t *testing.T) {
	a := &app{env: func(name string) (string, bool) { return "here", name == "THERE" }}
	p := client.JobProgram{Kind: "proc", Path: "/usr/bin/sort"}
	flags := jobFlags{retries: -1, env: []string{"A=b=c", "THERE"}, inputs: []string{"/photos/a.jpg=b/c.jpg", "/x"}}
	req, err := flags.request(a, p, true)
	if err != nil {
		t.Fatal(err)
	}
	if req.Name != "sort" || !req.AnyExit || req.Failures != 0 || len(req.Needs) != 1 || !strings.HasPrefix(req.Needs[0], "os=") {
		t.Errorf("%+v", req)
	}
	if !slices.Equal(req.Program.Env, []string{"A=b=c", "THERE=here"}) {
		t.Errorf("%q", req.Program.Env)
	}
	if len(req.Inputs) != 2 || req.Inputs[0].Name != "b/c.jpg" || req.Inputs[0].From.Path != "/photos/a.jpg" || req.Inputs[1].Name != "x" {
		t.Errorf("%+v", req.Inputs)
	}
	flags.retries, flags.needs = 2, []string{"os=plan9"}
	if req, err = flags.request(a, p, true); err != nil || req.AnyExit || req.Failures != 3 || !slices.Equal(req.Needs, []string{"os=plan9"}) {
		t.Errorf("%+v, %v", req, err)
	}
	flags.env = []string{"NOWHERE"}
	if _, err = flags.request(a, p, true); client.KindOf(err) != client.KindInvalid {
		t.Error(err)
	}
	flags.env, flags.inputs = nil, []string{"/"}
	if _, err = flags.request(a, p, true); client.KindOf(err) != client.KindInvalid {
		t.Error(err)
	}
}

func TestTaskExits(t *testing.T) {
	for _, c := range []struct {
		result client.TaskResult
		want   int
	}{
		{client.TaskResult{State: client.TaskDone}, 0},
		{client.TaskResult{State: client.TaskDone, Exit: 3}, 3},
		{client.TaskResult{State: client.TaskFailed, Exit: 7, Reason: "it exited with 7"}, 7},
		{client.TaskResult{State: client.TaskFailed, Reason: "it ran out of time"}, exitOwn},
		{client.TaskResult{State: client.TaskCanceled}, exitOwn},
	} {
		if got := exitCode(taskExit(c.result)); got != c.want {
			t.Errorf("%+v: %d, want %d", c.result, got, c.want)
		}
	}
	if got := exitCode(ownFailure(t.Context(), client.ErrNoPeer)); got != exitOwn {
		t.Errorf("no peer: %d", got)
	}
}

func TestLinesAreKeptWhole(t *testing.T) {
	var out bytes.Buffer
	w := &lineWriter{to: &out}
	for _, part := range []string{"a", "b\nc", "", "d\ne"} {
		if n, err := w.Write([]byte(part)); err != nil || n != len(part) {
			t.Fatal(n, err)
		}
	}
	if out.String() != "ab\ncd\n" {
		t.Errorf("%q", &out)
	}
	if err := w.flush(); err != nil || out.String() != "ab\ncd\ne\n" {
		t.Errorf("%q, %v", &out, err)
	}
	out.Reset()
	if _, err := w.Write(bytes.Repeat([]byte("x"), lineHeld+1)); err != nil || out.Len() != lineHeld+2 {
		t.Errorf("%d, %v", out.Len(), err)
	}
}

func TestTaskViewLines(t *testing.T) {
	v := (&app{}).newTaskView("job")
	v.update(&client.Job{Tasks: 10, Running: 3, Workers: 2, Rate: 0.5, Retries: 1, Failed: 1}, 4)
	text := v.head() + ", " + strings.Join(v.facts(), ", ")
	if text != "4 of 10 tasks (40 %), 30.0/min, 12s left, 3 running on 2 peers, 1 again, 1 failed" {
		t.Error(text)
	}
}
