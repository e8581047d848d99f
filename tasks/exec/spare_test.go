package exec

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestSpares: a folder that a command left as it was is used again, and no other.
func TestSpares(t *testing.T) {
	p := openProcPool(t)
	dir := t.TempDir()
	run := func(name, script string) {
		t.Helper()
		task, _, _ := shell(t, script)
		task.Dir = filepath.Join(dir, name)
		if e := finish(t, p, task); e.Code != 0 || e.Reason != "" {
			t.Fatalf("%s: %+v", name, e)
		}
	}
	left := func() (spare int, names string) {
		t.Helper()
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), ".spare-") {
				spare++
			} else {
				names += e.Name() + " "
			}
		}
		return spare, names
	}
	run("a", "true")
	if spare, names := left(); spare != 1 || names != "" {
		t.Errorf("%d spare, %s", spare, names)
	}
	run("b", `[ -d out ] && [ "$(ls -A)" = out ] && [ -z "$(ls -A out)" ]`)
	for name, script := range map[string]string{
		"file": "touch x", "hidden": "touch .x", "out": "mkdir out/x", "mode": "chmod 777 .", "mode2": "chmod 500 out", "gone": "rmdir out",
		"link": `rmdir out && mkdir -m 700 x && ln -s x out`,
	} {
		run(name, script)
		if spare, names := left(); spare != 0 || names != name+" " {
			t.Errorf("%s: %d spare, %s", name, spare, names)
		}
		if info, err := os.Lstat(filepath.Join(dir, name, "out")); err == nil && !info.IsDir() {
			t.Errorf("%s: out is %v", name, info.Mode())
		}
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		run("again", "true")
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if spare, names := left(); spare != 0 || names != "" {
		t.Errorf("%d spare, %s", spare, names)
	}
}
