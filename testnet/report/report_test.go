package report

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/shoal-os/shoal/dht/golden"
)

// sample is a run in which a bit of everything happened. A name tries to be markup.
func sample() *Report {
	return &Report{
		Scenario: "sample", About: "a <b>bit</b> of everything", Seed: 7, Mode: "namespaces", Version: "1.2.3",
		Began: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Took: 30,
		Peers: []Peer{
			{Name: "p1", Addr: "10.77.0.1", RSS: 70 << 20, CPU: 1.5, Sent: 5 << 20, Lives: []Life{{0, 0.5, "starting", ""}, {0.5, 30, "up", "stopped"}}},
			{Name: "p2", Addr: "10.77.0.2", RSS: 60 << 20, CPU: 0.4, Lives: []Life{
				{0, 0.5, "starting", ""}, {0.5, 9, "up", "killed"}, {14, 14.5, "starting", ""}, {14.5, 20, "up", ""}, {20, 25, "paused", ""}, {25, 28, "up", "crashed"}}},
		},
		Stages: []Stage{
			{From: 0, To: 1, Text: "start all", Line: 3},
			{From: 1, To: 28, Text: "during 30s short 10s", Line: 5},
			{From: 28, To: 29, Text: "read docs on p1", Line: 9, Err: "p1 reads /docs/f0: </script><script>alert(1)</script>"},
			{From: 29, To: 29, Text: "clock p2 +2h", Line: 10, Skipped: "not here"},
		},
		Spans: []Span{{5, 12, "partition", "partition p1 | p2 for 7s"}},
		Events: []Event{
			{From: 2, To: 3, Peers: []int{0}, Kind: "put", Text: "put docs on p1"},
			{From: 9, To: 9, Peers: []int{1}, Kind: "kill", Text: "kill p2 for 5s"},
			{From: 28, To: 29, Peers: []int{0, 1}, Kind: "read", Text: "read docs on p1..p2", Err: "no"},
		},
		Samples: []Sample{
			{At: 1, Up: 2, RSS: 100 << 20, Sent: 1 << 20},
			{At: 2, Up: 2, RSS: 120 << 20, Sent: 3 << 20, Copies: map[string]int64{"safe": 1 << 20, "single": 1 << 19}},
			{At: 3, Up: 1, RSS: 110 << 20, Sent: 4 << 20, Copies: map[string]int64{"safe": 1 << 20, "short": 1 << 19}},
		},
		Jobs: []Job{{Name: "sums", ID: "j1", Tasks: 2, Submitted: 4, Done: 8, Attempts: []Attempt{
			{Task: 0, Peer: 0, From: 4, To: 6, End: "committed"}, {Task: 1, Peer: 1, From: 4, To: 5, End: "lapsed"}, {Task: 1, Peer: 9, From: 6, To: 8, End: "committed"}}}},
		Tally:    Tally{Puts: 2, Acked: 1, Files: 3, Bytes: 3 << 19, Shares: 1, Gets: 1, Reads: 9, ReadBytes: 9 << 19, Kills: 1, Pauses: 1, Cuts: 1, Jumps: 3, Tried: 2, TryFailed: 1, Sent: 5 << 20, Jobs: 1, Tasks: 2},
		Skipped:  []string{"clock: not here"},
		Failed:   "line 9: read docs on p1: no",
		Promises: []Promise{{Name: "files", Held: true, Text: "3 files"}, {Name: "alive", Text: "p2 ended by itself"}, {Name: "memory", Skipped: "this system does not tell"}},
	}
}

func TestTable(t *testing.T) {
	var b bytes.Buffer
	if err := sample().WriteTable(&b); err != nil {
		t.Fatal(err)
	}
	golden.Check(t, filepath.Join("testdata", "table.txt"), b.Bytes())
}

// Where nobody counts what is sent, nobody is said to have sent nothing.
func TestTableWithoutNetwork(t *testing.T) {
	r := sample()
	r.Tally.Sent = 0
	for i := range r.Peers {
		r.Peers[i].Sent = 0
	}
	var b, page bytes.Buffer
	if err := errors.Join(r.WriteTable(&b), r.WriteHTML(&page)); err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(b.Bytes(), []byte(" 0 B")) || bytes.Contains(page.Bytes(), []byte(">0 B<")) {
		t.Error(b.String())
	}
}

func TestVerdict(t *testing.T) {
	r := sample()
	if r.OK() || r.Verdict() != "BROKEN: 1 of 3 promises" {
		t.Errorf("%v %q", r.OK(), r.Verdict())
	}
	r.Promises = r.Promises[:1]
	if r.OK() || !strings.HasPrefix(r.Verdict(), "FAILED: line 9") {
		t.Errorf("%v %q", r.OK(), r.Verdict())
	}
	if r.Failed = ""; !r.OK() || r.Verdict() != "ok: 1 promises held in 30 s" {
		t.Errorf("%v %q", r.OK(), r.Verdict())
	}
}

// outside finds what would make a browser ask for something else: the page must not.
var outside = regexp.MustCompile(`(?i)(src|href)\s*=|url\(|@import|https?://|<link|<iframe|fetch\(|XMLHttp`)

func TestPageStandsAlone(t *testing.T) {
	page := render(t, sample())
	if found := outside.FindString(page); found != "" {
		t.Errorf("the page has %q", found)
	}
	for _, want := range []string{"BROKEN: 1 of 3 promises", "start all", "p2: paused from 20.0 s to 25.0 s", "task 1 on ?", "partition p1 | p2", "1.5 MiB"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
}

func render(t *testing.T, r *Report) string {
	t.Helper()
	var b bytes.Buffer
	if err := r.WriteHTML(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestPageEscapes: whatever a report says, the page has only the two script elements of its own.
func TestPageEscapes(t *testing.T) {
	page := render(t, sample())
	if n := strings.Count(page, "<script"); n != 2 || strings.Contains(page, "<b>bit") {
		t.Errorf("%d script elements, want 2", n)
	}
}

// TestDrawingIsXML: the time line is well-formed, whatever is in it.
func TestDrawingIsXML(t *testing.T) {
	r := sample()
	r.Peers[0].Name = `<p1 & "friends">`
	for _, r := range []*Report{r, {}} {
		d := xml.NewDecoder(strings.NewReader("<svg>" + string(r.draw().Body) + "</svg>"))
		for {
			_, err := d.Token()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestPageCarriesTheReport: the JSON in the page is the report.
func TestPageCarriesTheReport(t *testing.T) {
	r := sample()
	_, rest, _ := strings.Cut(render(t, r), `<script type="application/json" id="report">`)
	text, _, _ := strings.Cut(rest, "</script>")
	var back Report
	if err := json.Unmarshal([]byte(text), &back); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(&back, r) {
		t.Errorf("it came back as\n%+v", back)
	}
}
