package block

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/shoal-os/shoal/storage/chunk"
)

// placed begins a download of a folder of three files and writes one of them.
func placed(t *testing.T) (st *Store, r *Root, tree *chunk.Tree, path string) {
	t.Helper()
	leaf := func(s string) chunk.Child {
		return chunk.Child{CID: chunk.SumRaw([]byte(s)), Tsize: uint64(len(s))}
	}
	one, two, none := leaf("one"), leaf("two"), leaf("")
	one.Name, two.Name, none.Name = "one", "two", "none"
	sub, subNodes, err := chunk.DirDAG([]chunk.Child{two})
	if err != nil {
		t.Fatal(err)
	}
	sub.Name = "sub"
	root, nodes, err := chunk.DirDAG([]chunk.Child{none, one, sub})
	if err != nil {
		t.Fatal(err)
	}
	blocks := [][]byte{nodes[0].Data, subNodes[0].Data}
	if tree, err = walk(root.CID, blocks); err != nil {
		t.Fatal(err)
	}
	if st, err = Open(filepath.Join(t.TempDir(), "store")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(st.Close)
	path = filepath.Join(t.TempDir(), "out")
	if r, err = st.Begin(tree, blocks, "out", path); err != nil {
		t.Fatal(err)
	}
	write(t, r, 0, "one")
	return st, r, tree, path
}

func write(t *testing.T, r *Root, leaf int, data string) {
	t.Helper()
	w, err := r.NewWriter()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := errors.Join(w.WriteLeaf(leaf, []byte(data)), r.Mark(leaf)); err != nil {
		t.Fatal(err)
	}
}

func there(path ...string) bool {
	_, err := os.Lstat(filepath.Join(path...))
	return err == nil
}

// onlyOne keeps the root and the file "one".
func onlyOne(tree *chunk.Tree) func(int) bool {
	return func(i int) bool { return tree.Entries[i].Path == "" || tree.Entries[i].Path == "one" }
}

func TestPlaceAndUnplace(t *testing.T) {
	st, r, tree, path := placed(t)
	changed := r.Changed()
	if err := r.Place(onlyOne(tree), false); err != nil {
		t.Fatal(err)
	}
	select {
	case <-changed:
	default:
		t.Error("nobody was told")
	}
	if !there(path, "one") || there(path, "sub") || there(path, "none") || there(path+PartialSuffix) {
		t.Error("the folder is not what was chosen")
	}
	if i := r.Info(); !i.Placed || i.State != Partial || i.PartialPath != path || !r.Trusted() {
		t.Errorf("%+v", i)
	}
	rd, err := r.NewReader()
	if err != nil {
		t.Fatal(err)
	}
	defer rd.Close()
	if data, err := rd.ReadLeaf(0, nil); err != nil || string(data) != "one" {
		t.Errorf("%q %v", data, err)
	}
	// It is the same for the next process.
	again, err := Open(st.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	r2, ok := again.Root(r.CID())
	if !ok || !r2.Info().Placed || r2.HaveCount() != 1 || len(again.Damaged()) > 0 {
		t.Fatalf("%v %v", ok, again.Damaged())
	}
	if err := r2.Unplace(false); err != nil {
		t.Fatal(err)
	}
	if there(path) || !there(path+PartialSuffix, "sub") || r2.Info().Placed {
		t.Error("it does not go on")
	}
	write(t, r2, 1, "two")
	if err := r2.Finish(false); err != nil || !there(path, "none") || !there(path, "sub", "two") {
		t.Errorf("%v", err)
	}
}

func TestPlaceDropsWhatIsNotComplete(t *testing.T) {
	_, r, tree, path := placed(t)
	if err := os.WriteFile(filepath.Join(path+PartialSuffix, "sub", "two"), []byte("t"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := r.Place(func(int) bool { return true }, false); err != nil {
		t.Fatal(err)
	}
	if there(path, "sub", "two") || !there(path, "sub") || !there(path, "none") {
		t.Error("wrong files")
	}
	_ = tree
}

func TestPlaceRefusesATakenName(t *testing.T) {
	_, r, tree, path := placed(t)
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := r.Place(onlyOne(tree), false); !errors.Is(err, ErrExists) || r.Info().Placed || !there(path+PartialSuffix, "one") {
		t.Fatalf("%v %+v", err, r.Info())
	}
	if err := r.Place(onlyOne(tree), true); err != nil || !there(path, "one") {
		t.Error(err)
	}
}

func TestUnplaceKeepsTheUsersFiles(t *testing.T) {
	_, r, tree, path := placed(t)
	if err := r.Place(onlyOne(tree), false); err != nil {
		t.Fatal(err)
	}
	// A file of the user's stands where one is to come.
	mine := filepath.Join(path, "sub")
	if err := errors.Join(os.Mkdir(mine, 0o755), os.WriteFile(filepath.Join(mine, "two"), []byte("my"), 0o644)); err != nil {
		t.Fatal(err)
	}
	if err := r.Unplace(false); !errors.Is(err, ErrExists) || !there(path, "sub", "two") {
		t.Fatalf("%v", err)
	}
	if err := os.RemoveAll(mine); err != nil {
		t.Fatal(err)
	}
	// The chosen file was written to.
	later := time.Now().Add(time.Minute)
	if err := os.Chtimes(filepath.Join(path, "one"), later, later); err != nil {
		t.Fatal(err)
	}
	rd, err := r.NewReader()
	if err != nil {
		t.Fatal(err)
	}
	defer rd.Close()
	if _, err := rd.ReadLeaf(0, nil); !errors.Is(err, ErrChanged) {
		t.Errorf("it is served: %v", err)
	}
	if bad, err := r.Check(5); err != nil || len(bad) != 1 || r.Info().Problem == "" {
		t.Errorf("%v %v", bad, err)
	}
	if err := r.Unplace(false); !errors.Is(err, ErrExists) || r.HaveCount() != 1 {
		t.Errorf("%v", err)
	}
	if err := r.Unplace(true); err != nil || r.HaveCount() != 0 {
		t.Errorf("%v, %d leaves", err, r.HaveCount())
	}
}

// TestCrashInPlace: a record that says placed before the folder was moved, or
// after it was moved back, is put right when it is read.
func TestCrashInPlace(t *testing.T) {
	st, r, tree, path := placed(t)
	if err := r.Place(onlyOne(tree), false); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path, path+PartialSuffix); err != nil {
		t.Fatal(err)
	}
	again, err := Open(st.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	r2, ok := again.Root(r.CID())
	if !ok || r2.Info().Placed || r2.Info().PartialPath != path+PartialSuffix || r2.HaveCount() != 1 {
		t.Fatalf("%v %v", ok, again.Damaged())
	}
}

func TestNodesByName(t *testing.T) {
	st, r, _, _ := placed(t)
	n, err := r.OpenNodes()
	if err != nil {
		t.Fatal(err)
	}
	if data, err := n.Read(r.CID()); err != nil || chunk.SumNode(data) != r.CID() {
		t.Errorf("%v", err)
	}
	if _, err := n.Read(chunk.SumNode(nil)); !errors.Is(err, ErrNotFound) {
		t.Errorf("%v", err)
	}
	file := filepath.Join(st.dir, r.CID().String(), treeFile)
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)-1]++
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Read(r.CID()); err != nil {
		t.Errorf("the first block is whole: %v", err)
	}
	n.Close()
	if _, err := n.Read(r.CID()); !errors.Is(err, os.ErrClosed) {
		t.Errorf("%v", err)
	}
	if err := os.WriteFile(file, data[:len(data)-1], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := r.OpenNodes(); !errors.Is(err, ErrDamaged) {
		t.Errorf("%v", err)
	}
}

func TestLimitIsInTheRecord(t *testing.T) {
	st, r, _, _ := placed(t)
	want := Limit{Ratio: 1.25, Time: time.Hour, Uploaded: 7, Seeded: time.Minute}
	if err := errors.Join(r.SetLimit(want), r.SetWeb([]string{"https://example.org/x"})); err != nil {
		t.Fatal(err)
	}
	again, err := Open(st.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	r2, ok := again.Root(r.CID())
	if !ok || r2.Limit() != want || len(r2.Info().Web) != 1 {
		t.Fatalf("%v %v", ok, again.Damaged())
	}
	if err := r2.SetLimit(Limit{}); err != nil || r2.Limit().Set() {
		t.Error(err)
	}
}
