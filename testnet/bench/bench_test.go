package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestMain lets the test binary be the sides of a floor, as the program itself is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == roleCommand {
		if err := runRole(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]int64{"0": 0, "4096": 4096, "4KiB": 4096, "64MiB": 64 << 20, "1GiB": 1 << 30, "2MB": 2e6, "7B": 7} {
		var s size
		if err := s.Set(text); err != nil || int64(s) != want {
			t.Errorf("%s is %d, want %d: %v", text, s, want, err)
		}
		var again size
		if err := again.Set(s.String()); err != nil || again != s {
			t.Errorf("%s prints as %s, which reads as %d: %v", text, s.String(), again, err)
		}
	}
	for _, text := range []string{"", "GiB", "-1", "1.5GiB", "9999999999999GiB", "one"} {
		if err := new(size).Set(text); err == nil {
			t.Errorf("%q was taken for a size", text)
		}
	}
}

func TestDataIsReproducible(t *testing.T) {
	dir := t.TempDir()
	sum, err := makeFile(filepath.Join(dir, "a"), bufferSize+7, 1)
	if err != nil {
		t.Fatal(err)
	}
	if read, err := fileSum(filepath.Join(dir, "a")); err != nil || read != sum {
		t.Errorf("written %s, read %s: %v", sum, read, err)
	}
	if again, _ := makeFile(filepath.Join(dir, "b"), bufferSize+7, 1); again != sum {
		t.Error("equal seeds make different files")
	}
	if other, _ := makeFile(filepath.Join(dir, "b"), bufferSize+7, 2); other == sum {
		t.Error("different seeds make equal files")
	}
	tree, err := makeTree(filepath.Join(dir, "tree"), filesPerFolder+1, 10, 3)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "tree", "folder-000", "file-000000.bin"), filepath.Join(dir, "tree", "folder-000", "x")); err != nil {
		t.Fatal(err)
	}
	if renamed, err := treeSum(filepath.Join(dir, "tree")); err != nil || renamed == tree {
		t.Errorf("a renamed file leaves the tree's digest as it was: %v", err)
	}
}

// TestFloors runs every floor between real processes, small.
func TestFloors(t *testing.T) {
	dir := t.TempDir()
	b, err := newShareBench(filepath.Join(dir, "data"), 3*bufferSize+11, packBatch+5, 100)
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	for _, c := range []struct {
		transport string
		quic      bool
	}{{"tcp", false}, {"p2p", false}, {"p2p", true}} {
		s, err := b.copying(ctx, c.transport, roleArgs{QUIC: c.quic})
		if err != nil || s.recv.Bytes != b.size || s.rate <= 0 {
			t.Errorf("%s, QUIC %v: %+v: %v", c.transport, c.quic, s, err)
		}
	}
	if s, err := b.packing(ctx); err != nil || s.recv.Files != b.files {
		t.Errorf("packed: %+v: %v", s, err)
	}
	for role, path := range map[string]string{"hash-file": b.file, "hash-tree": b.tree} {
		if r, err := alone(ctx, role, roleArgs{Path: path}); err != nil || r.Bytes == 0 {
			t.Errorf("%s: %+v: %v", role, r, err)
		}
	}
	if err := b.warm(); err != nil {
		t.Error(err)
	}
}

// TestPeersInside runs an import and a get between the peers that this program starts in itself, with profiles.
func TestPeersInside(t *testing.T) {
	dir := t.TempDir()
	b, err := newShareBench(filepath.Join(dir, "data"), bufferSize+1, 3, 100)
	if err != nil {
		t.Fatal(err)
	}
	p := newPeers(dir, dir)
	if r, err := p.importing(t.Context(), b.file); err != nil || r.Bytes != b.size {
		t.Errorf("import: %+v: %v", r, err)
	}
	out := filepath.Join(dir, "out")
	if got, _, err := p.profiled(t.Context(), b.file, out); err != nil || got.Bytes != b.size {
		t.Errorf("get: %+v: %v", got, err)
	}
	if err := check(out, b.fileSum, fileSum); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"import", "seed", "get"} {
		if info, err := os.Stat(filepath.Join(dir, name+"-large.cpu.pprof")); err != nil || info.Size() == 0 {
			t.Errorf("profile of %s: %v", name, err)
		}
	}
}

func TestFloorsNoticeWrongBytes(t *testing.T) {
	dir := t.TempDir()
	b, err := newShareBench(filepath.Join(dir, "data"), 1000, 3, 100)
	if err != nil {
		t.Fatal(err)
	}
	b.fileSum, b.treeSum = "x", "y"
	if _, err := b.copying(t.Context(), "tcp", roleArgs{}); err == nil {
		t.Error("the copy was not compared with the original")
	}
	if _, err := b.packing(t.Context()); err == nil {
		t.Error("the tree was not compared with the original")
	}
}

func TestRoleFailureIsReported(t *testing.T) {
	_, err := alone(t.Context(), "hash-file", roleArgs{Path: filepath.Join(t.TempDir(), "nothing")})
	if err == nil || !strings.Contains(err.Error(), "nothing") {
		t.Errorf("%v", err)
	}
}

// fakeCase is a case with a floor whose rates are given.
func fakeCase(name, floor string, rates ...float64) testcase {
	turn := 0
	return testcase{name: name, group: groupFile, what: "fake", floor: floor, run: func(context.Context) (sample, error) {
		turn++
		return sample{rate: rates[turn-1], seconds: 1, send: result{CPU: 4, RSS: 1e6}, note: "n"}, nil
	}}
}

func fakeReport(runs int) *report {
	r := newReport("fake", runs)
	r.groups = []group{{groupFile, "fake data", "MB/s", 2, "CPU s/GiB"}}
	return r
}

func TestRatioIsOfTheSameTurn(t *testing.T) {
	r := fakeReport(3)
	r.cases = []testcase{fakeCase("floor", "", 100, 1000, 10), fakeCase("subject", "floor", 50, 600, 4)}
	for range 3 {
		for _, c := range r.cases {
			s, _ := c.run(t.Context())
			r.samples[c.name] = append(r.samples[c.name], s)
		}
	}
	x := r.row(r.cases[1])
	if x.Median != 50 || x.Best != 600 || x.Ratio != 0.5 || x.SendCPU != 2 {
		t.Errorf("%+v", x)
	}
	var table, out bytes.Buffer
	if err := errors.Join(r.writeTable(&table), r.writeJSON(&out)); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(table.String(), "0.50  floor") || !json.Valid(out.Bytes()) {
		t.Errorf("%s%s", table.String(), out.String())
	}
}

func TestFailureIsCounted(t *testing.T) {
	r := fakeReport(2)
	turn := 0
	sometimes := testcase{name: "subject", group: groupFile, floor: "floor", run: func(context.Context) (sample, error) {
		if turn++; turn == 1 {
			return sample{}, errors.New("no luck")
		}
		return sample{rate: 5}, nil
	}}
	err := r.measure(t.Context(), &runOptions{runs: 2}, []testcase{fakeCase("floor", "", 100, 10), sometimes})
	if err == nil || !strings.Contains(err.Error(), "no luck") {
		t.Errorf("%v", err)
	}
	if x := r.row(sometimes); x.Failed != 1 || x.Median != 5 || x.Ratio != 0.5 {
		t.Errorf("%+v", x)
	}
}

func TestOnlyBringsItsFloor(t *testing.T) {
	cases := []testcase{fakeCase("a", ""), fakeCase("b", "a"), fakeCase("c", "")}
	r := fakeReport(1)
	if err := r.choose("b", cases); err != nil || len(r.cases) != 2 || r.cases[0].name != "a" {
		t.Errorf("%+v: %v", r.cases, err)
	}
	if err := r.choose("b,x", cases); err == nil || !strings.Contains(err.Error(), "a, b, c") {
		t.Errorf("%v", err)
	}
}

func TestParseGot(t *testing.T) {
	for _, text := range []string{`{"elapsed_s":1.5}`, "{\n \"elapsed_s\": 1.5\n}\n", "noise\n{\"elapsed_s\":1.5}\n"} {
		if got, _, err := parseGot([]byte(text)); err != nil || got != 1.5 {
			t.Errorf("%q gives %v: %v", text, got, err)
		}
	}
	for _, text := range []string{"", "x", "{}"} {
		if _, _, err := parseGot([]byte(text)); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
}

func TestUnknownBench(t *testing.T) {
	if err := dispatch(t.Context(), []string{"nothing"}); err == nil || errors.Is(err, flag.ErrHelp) {
		t.Errorf("%v", err)
	}
	if err := dispatch(t.Context(), []string{roleCommand, "nothing", "{}"}); err == nil {
		t.Error("an unknown role ran")
	}
}
