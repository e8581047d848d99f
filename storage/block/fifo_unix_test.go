//go:build unix

package block

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func mkfifo(path string) error { return unix.Mkfifo(path, 0o600) }

// blocksOf is what a file takes on the disk, in bytes.
func blocksOf(t *testing.T, path string) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

// Zeros are not written where a file is fresh: what was sparse stays sparse.
func TestSparseStaysSparse(t *testing.T) {
	content := make([]byte, 20<<20)
	copy(content[10<<20:], noise(7, 100))
	s := makeSample(t, map[string]string{"sparse": string(content), "zeros": string(content[:5<<20])})
	out := filepath.Join(t.TempDir(), "out")
	r := s.begin(t, open(t, t.TempDir()), out)
	s.fill(t, r)
	if err := r.Finish(false); err != nil {
		t.Fatal(err)
	}
	s.check(t, out)
	if n := blocksOf(t, filepath.Join(out, "sparse")); n > 2<<20 {
		t.Errorf("20 MiB of which 100 bytes are not zero take %d bytes", n)
	}
	if n := blocksOf(t, filepath.Join(out, "zeros")); n > 64<<10 {
		t.Errorf("5 MiB of zeros take %d bytes", n)
	}
}

// A hole is left only where the file reads as zeros: a retry may have written
// something else there.
func TestZerosOverwriteRubbish(t *testing.T) {
	s := makeSample(t, map[string]string{"": noise(8, 1<<20) + string(make([]byte, 2<<20))})
	out := filepath.Join(t.TempDir(), "out")
	r := s.begin(t, open(t, t.TempDir()), out)
	if err := os.WriteFile(out+PartialSuffix, []byte(noise(9, 4<<20)), 0o644); err != nil {
		t.Fatal(err)
	}
	s.fill(t, r)
	if err := r.Finish(false); err != nil {
		t.Fatal(err)
	}
	s.check(t, out)
}

func TestFreeSpace(t *testing.T) {
	if n, err := FreeSpace(t.TempDir()); err != nil || n <= 0 {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := FreeSpace(filepath.Join(t.TempDir(), "not there")); err == nil {
		t.Error("space of a folder that is not there")
	}
}
