package testnet

import (
	"crypto/sha256"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/shoal-os/shoal/testnet/script"
)

// TestShippedScenariosArePlanned: each parses, says what it is about, and can be planned at its own size, at its least and in short.
func TestShippedScenariosArePlanned(t *testing.T) {
	for _, name := range Scenarios() {
		s, err := Load(name)
		if err != nil {
			t.Error(err)
			continue
		}
		if s.About == "" {
			t.Errorf("%s does not say what it is about", name)
		}
		for _, opt := range []script.Options{{Seed: 1}, {Seed: 2, Short: true}, {Seed: 3, Peers: s.Least}, {Seed: 4, Peers: 20}} {
			if opt.Peers > 0 && opt.Peers < s.Least {
				continue
			}
			if _, err := s.Plan(opt); err != nil {
				t.Errorf("%s with %+v: %v", name, opt, err)
			}
		}
	}
}

func TestScenariosOfAPath(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mine.txt")
	if err := os.WriteFile(path, []byte("start all\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if s, err := Load(path); err != nil || s.Name != "mine" {
		t.Errorf("%+v, %v", s, err)
	}
	for _, name := range []string{"nothing", t.TempDir()} {
		if _, err := Load(name); err == nil || !strings.Contains(err.Error(), "first-day") {
			t.Errorf("%s: %v; it should name those that there are", name, err)
		}
	}
}

// TestASeedFixesTheFiles: equal seeds make equal files, others do not, and a file is compared to the last byte.
func TestASeedFixesTheFiles(t *testing.T) {
	sizes := script.Sizes{Least: 0, Most: 5000}
	write := func(seed uint64) (string, []blob) {
		dir := filepath.Join(t.TempDir(), "d")
		blobs, err := writeData(dir, 20, sizes, seed)
		if err != nil {
			t.Fatal(err)
		}
		return dir, blobs
	}
	dir, a := write(1)
	_, b := write(1)
	_, c := write(2)
	if !reflect.DeepEqual(a, b) || reflect.DeepEqual(a, c) {
		t.Error("the seed does not fix the files")
	}
	for _, f := range a {
		path := filepath.Join(dir, f.name)
		if err := f.check(path); err != nil {
			t.Error(err)
		}
		data, err := os.ReadFile(path)
		if err != nil || sha256.Sum256(data) != f.sum {
			t.Errorf("%s: %v", f.name, err)
		}
		if len(data) == 0 {
			continue
		}
		data[len(data)-1] ^= 1
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		if f.check(path) == nil {
			t.Errorf("%s: a flipped bit was not seen", f.name)
		}
		if err := os.WriteFile(path, data[1:], 0o644); err != nil {
			t.Fatal(err)
		}
		if f.check(path) == nil {
			t.Errorf("%s: a missing byte was not seen", f.name)
		}
	}
}

// TestDescribe: what is logged names the peers that chance chose, and can be put into a scenario as it is.
func TestDescribe(t *testing.T) {
	s, err := script.Parse("x", "peers 5\nstart all\nkill any*2 for 3s..9s\npartition p1,p2 | rest for 1s\nexpect away any")
	if err != nil {
		t.Fatal(err)
	}
	p, err := s.Plan(script.Options{Seed: 3})
	if err != nil {
		t.Fatal(err)
	}
	source := "peers 5\n"
	for _, stage := range p.Stages {
		source += Describe(stage.Actions[0]) + "\n"
	}
	again, err := script.Parse("x", source)
	if err != nil {
		t.Fatalf("%v\n%s", err, source)
	}
	for _, seed := range []uint64{4, 5} {
		q, err := again.Plan(script.Options{Seed: seed})
		if err != nil {
			t.Fatal(err)
		}
		for i := range q.Stages {
			a, b := p.Stages[i].Actions[0], q.Stages[i].Actions[0]
			if !reflect.DeepEqual(a.Peers, b.Peers) || !reflect.DeepEqual(a.Sides, b.Sides) || a.Hold != b.Hold {
				t.Errorf("`%s` became `%s`", Describe(a), Describe(b))
			}
		}
	}
	if !strings.Contains(source, "partition p1..p2 | p3..p5 for 1s") {
		t.Error(source)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
