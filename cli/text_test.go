package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shoal-os/shoal/node/api/client"
	"github.com/shoal-os/shoal/storage/chunk"
)

func TestSizes(t *testing.T) {
	for n, want := range map[int64]string{
		-1: "?", 0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 10 << 10: "10 KiB", 1023 << 10: "1.0 MiB",
		1 << 20: "1.0 MiB", 1536 << 20: "1.5 GiB", 999 << 30: "999 GiB", 1 << 62: "4.0 EiB",
	} {
		if got := bytesText(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}

func TestDurations(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 59 * time.Second: "59s", 200 * time.Second: "3m20s", 125 * time.Minute: "2h05m", 76 * time.Hour: "3d4h",
	} {
		if got := durationText(d); got != want {
			t.Errorf("%s: %q, want %q", d, got, want)
		}
	}
}

func TestFacts(t *testing.T) {
	for _, c := range []struct {
		p    client.Progress
		want string
	}{
		{client.Progress{Phase: "finding", Total: -1}, "looking for peers"},
		{
			client.Progress{Phase: "fetching", Done: 1 << 20, Total: 4 << 20, Rate: 1 << 20, Peers: 2, Files: 3},
			"fetching 1.0 MiB of 4.0 MiB (25 %), 3 files, 1.0 MiB/s, 3s left, 2 peers",
		},
		{client.Progress{Phase: "hashing", Done: 4, Total: 4, Rate: 1, Peers: 1}, "hashing 4 B of 4 B (100 %), 1 B/s"},
		{client.Progress{Phase: "fetching", Done: 5, Total: -1, Peers: 1}, "fetching 5 B, 1 peer"},
		{client.Progress{Phase: "\x1b[31mred", Total: 1 << 60, Rate: 1}, "[31mred 0 B of 1.0 EiB (0 %), 1 B/s"},
	} {
		if got := strings.Join(facts(c.p), ", "); got != c.want {
			t.Errorf("got  %q\nwant %q", got, c.want)
		}
	}
}

func TestFileNameOfAStrangersLink(t *testing.T) {
	root := chunk.SumRaw([]byte("x"))
	for name, want := range map[string]string{
		"photos":           "photos",
		"a b.txt":          "a b.txt",
		"../../etc/passwd": "_.._etc_passwd",
		"/etc/passwd":      "_etc_passwd",
		`..\windows`:       "_windows",
		".bashrc":          "bashrc",
		"-rf":              "rf",
		"..":               root.String(),
		"":                 root.String(),
		"a\nb\x1b[2J":      "a b[2J",
		"\u202egnp.exe":    "gnp.exe",
	} {
		if got := fileName(chunk.Link{Root: root, Name: name}); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
	if got := fileName(chunk.Link{Root: root, Name: strings.Repeat("x", 300)}); got != root.String() {
		t.Errorf("a name that no file system takes: %q", got)
	}
}

func TestDestination(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	if err := os.Mkdir("there", 0o755); err != nil {
		t.Fatal(err)
	}
	here, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	for output, want := range map[string]string{
		"":             "name",
		"there":        "there",
		"there/":       filepath.Join("there", "name"),
		"not-there/":   "not-there",
		"a/b":          filepath.Join("a", "b"),
		here + "/abs":  "abs",
		"there/../new": "new",
	} {
		if got, err := destination(output, "name"); err != nil || got != filepath.Join(here, want) {
			t.Errorf("%q: %q, %v", output, got, err)
		}
	}
}

func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errors.New("x"), 1},
		{usagef("", "x"), 2},
		{client.ErrNoPeer, 3},
		{client.Errorf(client.KindNotFound, "", "x"), 4},
		{fmt.Errorf("x: %w", fs.ErrNotExist), 4},
		{client.Errorf(client.KindExists, "", "x"), 5},
		{client.Errorf(client.KindNoSpace, "", "x"), 6},
		{fmt.Errorf("x: %w", fs.ErrPermission), 6},
		{client.Errorf(client.KindCorrupt, "", "x"), 7},
		{client.Errorf(client.KindBusy, "", "x"), 8},
		{client.Errorf(client.KindHome, "", "x"), 9},
		{interrupted{syscall.SIGINT}, 130},
		{silent{42}, 42},
	} {
		if got := exitCode(c.err); got != c.want {
			t.Errorf("%v: %d, want %d", c.err, got, c.want)
		}
		if c.want < 42 && !strings.Contains(exitHelp, fmt.Sprintf("\n%3d  ", c.want)) {
			t.Errorf("code %d is not in the help", c.want)
		}
	}
}

func TestErrorsAreCleanAndHaveAHint(t *testing.T) {
	var out strings.Builder
	a := &app{err: &out}
	a.printError(client.Errorf(client.KindNotFound, "do\nthis", "no \x1b[2Jscreen\nleft"))
	if want := "shoal: no [2Jscreen left\nhint: do this\n"; out.String() != want {
		t.Errorf("%q", out.String())
	}
}

func TestInterruptionIsTheError(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(interrupted{syscall.SIGTERM})
	var out strings.Builder
	a := &app{out: &out, err: &out, env: func(string) (string, bool) { return "", false }}
	code := a.run(ctx, []string{"down", "--home", t.TempDir()})
	if code != exitNoPeer { // nothing was cut short: the answer stands
		t.Errorf("exit %d: %s", code, out.String())
	}
}

func TestPick(t *testing.T) {
	one, two := chunk.SumRaw([]byte("1")), chunk.SumRaw([]byte("2"))
	path := filepath.Join(t.TempDir(), "x")
	shares := []client.Share{
		{Root: one.String(), Name: "same", Path: path},
		{Root: two.String(), Name: "same", Path: path + "y"},
		{Root: "r3", Name: "other", Path: path + "z"},
	}
	for arg, want := range map[string]string{
		one.String():              one.String(),
		"shoal:" + two.String():   two.String(),
		path + "y":                two.String(),
		"other":                   "r3",
		one.String() + "?n=other": "",
		"nothing":                 "",
		"same":                    "",
	} {
		got, err := pick(shares, arg)
		if got.Root != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", arg, got.Root, err)
		}
	}
}

func TestQR(t *testing.T) {
	code := qrText("shoal:bafy", false)
	lines := strings.Split(strings.TrimSuffix(code, "\n"), "\n")
	for _, line := range lines {
		if n := len([]rune(line)); n != len([]rune(lines[0])) || n < 2*len(lines)-1 {
			t.Errorf("not a square: %d by %d", n, len(lines))
		}
	}
	if strings.Contains(code, "\x1b") || !strings.Contains(qrText("x", true), "\x1b[") {
		t.Error("colours only where asked for")
	}
	if qrText(strings.Repeat("x", 5000), false) != "" {
		t.Error("a code of 5,000 letters")
	}
}
