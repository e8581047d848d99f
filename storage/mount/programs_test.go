package mount_test

import (
	"context"
	"math/rand/v2"

	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/shoal-os/shoal/storage/mount"
	"github.com/shoal-os/shoal/storage/mount/mounttest"
)

const programTime = 2 * time.Minute // for one of the foreign programs

// program finds a program of Debian's, or skips.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("SKIPPED: the program %s is not here; on Debian, apt-get install %s", name, name)
	}
	return path
}

// serve runs a face behind its guard on a free port. It returns its URL, with no slash at its end, and its password.
func serve(t testing.TB, files mount.FS, opt mount.Options) (url, token string) {
	t.Helper()
	token = "a token for a test"
	server := httptest.NewUnstartedServer(nil)
	guard, err := mount.Guard(server.Listener.Addr(), token, mount.Handler(files, opt))
	if err != nil {
		t.Fatal(err)
	}
	server.Config.Handler = guard
	server.Start()
	t.Cleanup(server.Close)
	return server.URL + opt.Prefix, token
}

// systems are the FSs that the programs are run against.
func systems() map[string]func(*testing.T) mount.FS {
	return map[string]func(*testing.T) mount.FS{
		"fake": func(*testing.T) mount.FS { return mounttest.NewFake() },
		"tree": func(t *testing.T) mount.FS { return openTree(t, openPieces(t, 1<<30)) },
	}
}

// TestLitmus runs the five groups of litmus (RFC 4918's conformance tests). Not one test may fail, be skipped or warn.
func TestLitmus(t *testing.T) {
	litmus := program(t, "litmus")
	for name, open := range systems() {
		t.Run(name, func(t *testing.T) {
			url, token := serve(t, open(t), mount.Options{Prefix: "/dav"})
			for _, group := range []string{"basic", "copymove", "props", "locks", "http"} {
				t.Run(group, func(t *testing.T) { runLitmus(t, litmus, group, url, token) })
			}
		})
	}
}

var litmusSummary = regexp.MustCompile(`summary for .*: of (\d+) tests run: (\d+) passed, 0 failed. 100.0%`)

func runLitmus(t *testing.T, litmus, group, url, token string) {
	ctx, cancel := context.WithTimeout(t.Context(), programTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, litmus, url+"/", "shoal", token)
	cmd.Dir = t.TempDir() // for its debug.log
	cmd.Env = append(os.Environ(), "TESTS="+group)
	out, err := cmd.CombinedOutput()
	text := string(out)
	summary := litmusSummary.FindStringSubmatch(text)
	if err != nil || summary == nil || summary[1] != summary[2] || strings.Contains(text, "WARNING") || strings.Contains(text, "SKIPPED") {
		log, _ := os.ReadFile(filepath.Join(cmd.Dir, "debug.log"))
		t.Fatalf("%v\n%s\n%s", err, text, log)
	}
	t.Logf("%s of %s tests passed", summary[2], summary[1])
}

// TestRclone copies a tree in, checks it byte by byte and by time, changes it, and copies it back.
func TestRclone(t *testing.T) {
	rclone := program(t, "rclone")
	for name, open := range systems() {
		t.Run(name, func(t *testing.T) {
			url, token := serve(t, open(t), mount.Options{})
			run := rcloneRunner(t, rclone, url, token)
			src, back := t.TempDir(), t.TempDir()
			writeTree(t, src)
			run("copy", src, "pool:in")
			run("check", "--download", src, "pool:in")
			// A second copy finds sizes and times equal, and sends nothing: X-OC-Mtime was honoured.
			if out := run("copy", "-v", "--dry-run", src, "pool:in"); strings.Contains(out, "Skipped copy") {
				t.Errorf("a second copy would send files again:\n%s", out)
			}
			changeTree(t, src)
			run("sync", src, "pool:in")
			run("check", "--download", src, "pool:in")
			run("copyto", "pool:in/deep", "pool:copied/deep")
			run("moveto", "pool:in", "pool:moved")
			run("check", "--download", src, "pool:moved")
			run("check", "--download", filepath.Join(src, "deep"), "pool:copied/deep")
			run("copy", "pool:moved", back)
			run("check", "--checkfile=", src, back)
			run("purge", "pool:moved")
			if out := run("lsf", "pool:"); strings.TrimSpace(out) != "copied/" {
				t.Errorf("left: %q", out)
			}
		})
	}
}

// rcloneRunner returns a function that runs rclone with a remote called pool.
func rcloneRunner(t *testing.T, rclone, url, token string) func(args ...string) string {
	config := filepath.Join(t.TempDir(), "rclone.conf")
	hidden, err := exec.Command(rclone, "--config", config, "obscure", token).Output()
	if err != nil {
		t.Fatal(err)
	}
	text := "[pool]\ntype = webdav\nvendor = owncloud\nuser = shoal\nurl = " + url + "\npass = " + string(hidden)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return func(args ...string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), programTime)
		defer cancel()
		cmd := exec.CommandContext(ctx, rclone, append([]string{"--config", config, "--retries=1", "--low-level-retries=1"}, args...)...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("rclone %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
}

// treeFiles are files by name, with their sizes: empty, small, of one leaf of a pool file, of more, and names that need
// escaping.
var treeFiles = map[string]int{
	"empty": 0, "one": 1, "leaf": 1 << 20, "deep/er/three leaves": 3<<20 + 17, "deep/a b#c%20&+;=@.txt": 100,
	"häß 日本/ü.md": 5000, "._resource": 10, "desktop.ini": 20, ".DS_Store": 30, "100%.txt": 40, "[x]'(y)!$,": 50,
}

func writeTree(t *testing.T, dir string) {
	t.Helper()
	random := rand.NewChaCha8([32]byte{5})
	for name, size := range treeFiles {
		data := make([]byte, size)
		_, _ = random.Read(data)
		writeFile(t, filepath.Join(dir, filepath.FromSlash(name)), data)
	}
}

// changeTree changes, adds and removes files.
func changeTree(t *testing.T, dir string) {
	t.Helper()
	writeFile(t, filepath.Join(dir, "one"), []byte("two"))
	writeFile(t, filepath.Join(dir, "new", "file"), []byte("new"))
	if err := os.RemoveAll(filepath.Join(dir, "häß 日本")); err != nil {
		t.Fatal(err)
	}
}

func writeFile(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, data, 0o644); err != nil {
		t.Fatal(err)
	}
	at := time.Date(2024, 2, 29, 12, 30, len(data)%60, 0, time.UTC)
	if err := os.Chtimes(name, at, at); err != nil {
		t.Fatal(err)
	}
}
