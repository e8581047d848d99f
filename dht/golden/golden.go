// Package golden owns the files under testdata that tests compare with, and write anew with "go test -update" for somebody to
// read the difference. It is for tests only.
package golden

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the files that tests compare with anew; read the difference")

// Check compares a file with what it should be by now, or writes that.
func Check(t testing.TB, file string, now []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, now, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	was, err := os.ReadFile(file)
	if err != nil || !bytes.Equal(was, now) {
		t.Errorf("%s is otherwise now (%v); run with -update and read the difference:\n%s", file, err, now)
	}
}

// Transcripts plays each testdata/*.txt as a test of its own. In these a line is something that happens, and the lines after it
// that begin with a tab are the answer. play is given the first kind only, and returns them with today's answers.
func Transcripts(t *testing.T, play func(t *testing.T, lines []string) []byte) {
	t.Helper()
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no transcripts", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var lines []string
			for line := range strings.Lines(string(text)) {
				if !strings.HasPrefix(line, "\t") {
					lines = append(lines, strings.TrimSuffix(line, "\n"))
				}
			}
			Check(t, file, play(t, lines))
		})
	}
}
