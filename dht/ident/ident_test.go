package ident

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
)

// childHome makes the test binary print the peer id of the home that it names, and exit.
const childHome = "SHOAL_IDENT_TEST_HOME"

func TestMain(m *testing.M) {
	if home := os.Getenv(childHome); home != "" {
		id, err := LoadOrCreate(home, "")
		if err != nil {
			println(err.Error())
			os.Exit(1)
		}
		_, _ = os.Stdout.WriteString(id.ID.String())
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func load(t *testing.T, home, name string) Identity {
	t.Helper()
	id, err := LoadOrCreate(home, name)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestCreatedOnceAndKept(t *testing.T) {
	home := filepath.Join(t.TempDir(), "deep", "home")
	first := load(t, home, "")
	again := load(t, home, "")
	if first.ID != again.ID || !first.Key.Equals(again.Key) {
		t.Error("the identity changed")
	}
	if first.Key.Type() != crypto.Ed25519 {
		t.Errorf("key of type %v", first.Key.Type())
	}
	if id, err := peer.IDFromPrivateKey(first.Key); err != nil || id != first.ID {
		t.Errorf("id %s does not follow from the key (%s, %v)", first.ID, id, err)
	}
	entries, err := os.ReadDir(home)
	if err != nil || len(entries) != 1 || entries[0].Name() != keyFile {
		t.Errorf("left in the home: %v, %v", entries, err)
	}
	if runtime.GOOS != "windows" {
		checkMode(t, home, homeMode)
		checkMode(t, filepath.Join(home, keyFile), keyMode)
	}
}

func checkMode(t *testing.T, path string, want fs.FileMode) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != want {
		t.Errorf("%s has mode %o, want %o", path, got, want)
	}
}

func TestOpenedUpKeyIsTightened(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no mode bits")
	}
	home := t.TempDir()
	load(t, home, "")
	path := filepath.Join(home, keyFile)
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	load(t, home, "")
	checkMode(t, path, keyMode)
}

func TestRaceWithinOneProcess(t *testing.T) {
	home := t.TempDir()
	var wg sync.WaitGroup
	ids := make([]Identity, 16)
	errs := make([]error, len(ids))
	for i := range ids {
		wg.Go(func() { ids[i], errs[i] = LoadOrCreate(home, "") })
	}
	wg.Wait()
	for i := range ids {
		if errs[i] != nil || ids[i].ID != ids[0].ID {
			t.Errorf("caller %d got %s, %v; the first got %s", i, ids[i].ID, errs[i], ids[0].ID)
		}
	}
}

func TestRaceOfProcesses(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	var wg sync.WaitGroup
	out := make([]string, 6)
	for i := range out {
		wg.Go(func() {
			cmd := exec.CommandContext(t.Context(), exe)
			cmd.Env = append(os.Environ(), childHome+"="+home)
			got, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("process %d: %v", i, err)
			}
			out[i] = string(got)
		})
	}
	wg.Wait()
	want := load(t, home, "").ID.String()
	for i, got := range out {
		if got != want {
			t.Errorf("process %d is %q, the home says %q", i, got, want)
		}
	}
}

func TestCorruptKeyIsLeftAlone(t *testing.T) {
	good := func() []byte {
		key, _, err := crypto.GenerateEd25519Key(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		data, err := crypto.MarshalPrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	flipped := good()
	flipped[len(flipped)-1] ^= 1
	key, _, err := crypto.GenerateSecp256k1Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other, err := crypto.MarshalPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"empty":     {},
		"cut short": good()[:40],
		"garbage":   []byte("not a key"),
		"flipped":   flipped,
		"other":     other,
		"large":     bytes.Repeat([]byte{8}, keyFileMax+1),
	} {
		home := t.TempDir()
		path := filepath.Join(home, keyFile)
		if err := os.WriteFile(path, data, keyMode); err != nil {
			t.Fatal(err)
		}
		_, err := LoadOrCreate(home, "")
		var ke *KeyError
		if !errors.As(err, &ke) || !strings.Contains(ke.Error(), path) || !strings.Contains(ke.Hint(), "backup") {
			t.Errorf("%s: %v", name, err)
		}
		if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, data) {
			t.Errorf("%s: the file was changed, %v", name, err)
		}
	}
	home := t.TempDir()
	if err := os.Mkdir(filepath.Join(home, keyFile), homeMode); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadOrCreate(home, ""); !errors.As(err, new(*KeyError)) {
		t.Errorf("a folder for a key: %v", err)
	}
}

func TestHomeThatCannotBe(t *testing.T) {
	if _, err := LoadOrCreate("", ""); err == nil {
		t.Error("no home")
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, keyMode); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadOrCreate(filepath.Join(file, "home"), ""); err == nil {
		t.Error("a home below a file")
	}
}

func TestName(t *testing.T) {
	home := t.TempDir()
	if got := load(t, home, "").Name; got == "" {
		t.Error("no name without any given")
	}
	if got := load(t, home, "  Anna's \x1b[31mlaptop\n").Name; got != "Anna's [31mlaptop" {
		t.Errorf("name %q", got)
	}
	if got := load(t, home, "").Name; got != "Anna's [31mlaptop" {
		t.Errorf("stored name %q", got)
	}
	if _, err := LoadOrCreate(home, "\x00\u202e"); err == nil {
		t.Error("a name without a printable character")
	}
	if got := load(t, home, "").Name; got != "Anna's [31mlaptop" {
		t.Errorf("name after a refused one %q", got)
	}
	if err := os.WriteFile(filepath.Join(home, nameFile), []byte("\xff\x07"), nameMode); err != nil {
		t.Fatal(err)
	}
	if got := load(t, home, "").Name; got == "" {
		t.Error("no name beside a damaged name file")
	}
}

func TestCleanName(t *testing.T) {
	for in, want := range map[string]string{
		"":                             "",
		"plain":                        "plain",
		"  two \t\n words  ":           "two words",
		"\x1b[2Jgone\x00":              "[2Jgone",
		"evil\u202egnp.exe":            "evilgnp.exe",
		"zero\u200bwidth\ufeff":        "zerowidth",
		"שלום 👋":                       "שלום 👋",
		"bad\xff\xfeutf8":              "badutf8",
		strings.Repeat("é", 40):        strings.Repeat("é", 31),
		strings.Repeat("x", 63) + " y": strings.Repeat("x", 63),
		strings.Repeat("x", 62) + " y": strings.Repeat("x", 62),
	} {
		if got := CleanName(in); got != want {
			t.Errorf("CleanName(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzCleanName(f *testing.F) {
	f.Add("Anna's laptop")
	f.Add("\u202e\x1b]0;x\x07")
	f.Fuzz(func(t *testing.T, s string) {
		got := CleanName(s)
		if len(got) > NameMax || !utf8.ValidString(got) || CleanName(got) != got {
			t.Errorf("CleanName(%q) = %q", s, got)
		}
	})
}

func FuzzDecodeKey(f *testing.F) {
	key, _, err := crypto.GenerateEd25519Key(bytes.NewReader(make([]byte, 64)))
	if err != nil {
		f.Fatal(err)
	}
	data, err := crypto.MarshalPrivateKey(key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add(data[:30])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		key, err := decodeKey(data)
		if err != nil {
			return
		}
		if err := matches(key); err != nil {
			t.Errorf("accepted a key that cannot sign: %v", err)
		}
	})
}
