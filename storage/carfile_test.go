package storage

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoal-os/shoal/storage/block"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/chunk/car"
)

func TestExportImport(t *testing.T) {
	a, b, c := newPeer(t), newPeer(t), newPeer(t)
	dir := mixedFolder(t)
	ctx := testContext(t)
	sh, err := a.Share(ctx, dir, ShareOptions{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "mixed.car")
	res, err := b.Export(ctx, a.link(t, sh), GetOptions{Dest: file}, nil)
	if err != nil || res.Size != sh.Size || res.Fetched == 0 || res.Path != file {
		t.Fatal(res, err)
	}
	if exists(file + block.PartialSuffix) {
		t.Error("the partial is still there")
	}
	// The same bytes from elsewhere; there already is success, something else is not.
	other := filepath.Join(t.TempDir(), "other.car")
	if res, err := a.Export(ctx, chunk.Link{Root: sh.Root}, GetOptions{Dest: other}, nil); err != nil || res.Fetched != 0 {
		t.Fatal(res, err)
	}
	one, _ := os.ReadFile(file)
	two, _ := os.ReadFile(other)
	if !bytes.Equal(one, two) {
		t.Error("two exports differ")
	}
	if _, err := a.Export(ctx, chunk.Link{Root: sh.Root}, GetOptions{Dest: other}, nil); err != nil {
		t.Errorf("again: %v", err)
	}
	write(t, other, append(two, 0))
	if _, err := a.Export(ctx, chunk.Link{Root: sh.Root}, GetOptions{Dest: other}, nil); !errors.Is(err, ErrExists) {
		t.Errorf("over a longer file: %v", err)
	}
	if _, err := a.Export(ctx, chunk.Link{Root: sh.Root}, GetOptions{Dest: other, Force: true}, nil); err != nil {
		t.Error(err)
	}

	// A third peer unpacks it without any network.
	got, err := c.Import(ctx, file, ImportOptions{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	at := strings.TrimSuffix(file, ".car")
	if got.Root != sh.Root || got.State != Seeding || got.Path != at || got.Name != "mixed" {
		t.Errorf("%+v", got)
	}
	sameTree(t, dir, at)
	if _, err := c.Import(ctx, file, ImportOptions{}, nil); err != nil {
		t.Errorf("again: %v", err)
	}
	if err := c.Unshare(sh.Root); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Import(ctx, file, ImportOptions{}, nil); err != nil || got.State != Seeding {
		t.Errorf("over the same files: %+v, %v", got, err)
	}
	// A second copy leaves the record where it is.
	second := filepath.Join(t.TempDir(), "second")
	if got, err := c.Import(ctx, file, ImportOptions{Dest: second}, nil); err != nil || got.Path != at {
		t.Errorf("%+v, %v", got, err)
	}
	sameTree(t, dir, second)
	d := newPeer(t)
	write(t, filepath.Join(second, "more"), []byte("x"))
	if _, err := d.Import(ctx, file, ImportOptions{Dest: second}, nil); !errors.Is(err, ErrExists) {
		t.Errorf("over something else: %v", err)
	}
	if _, err := d.Import(ctx, file, ImportOptions{Dest: second, Force: true}, nil); err != nil {
		t.Error(err)
	}
	sameTree(t, dir, second)
}

func TestImportSingleFiles(t *testing.T) {
	p := newPeer(t)
	for name, data := range map[string][]byte{"empty": nil, "raw": []byte("x"), "two": randomBytes(1, 1<<20+1)} {
		src := filepath.Join(t.TempDir(), name)
		write(t, src, data)
		sh, err := p.Share(testContext(t), src, ShareOptions{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "it")
		if _, err := p.Export(testContext(t), chunk.Link{Root: sh.Root}, GetOptions{Dest: file}, nil); err != nil {
			t.Fatal(err)
		}
		got, err := newPeer(t).Import(testContext(t), file, ImportOptions{}, nil)
		if err != nil || got.Root != sh.Root || got.Size != int64(len(data)) || got.Path != file+"-files" {
			t.Fatalf("%s: %+v, %v", name, got, err)
		}
		if back, err := os.ReadFile(file + "-files"); err != nil || !bytes.Equal(back, data) {
			t.Errorf("%s: %d bytes, %v", name, len(back), err)
		}
	}
}

// carFile writes a CAR file of blocks by name.
func carFile(t testing.TB, root chunk.CID, blocks ...chunk.Block) string {
	t.Helper()
	b := car.AppendHeader(nil, root)
	for _, x := range blocks {
		b = append(car.AppendBlock(b, x.CID, len(x.Data)), x.Data...)
	}
	path := filepath.Join(t.TempDir(), "x.car")
	write(t, path, b)
	return path
}

func TestImportRefuses(t *testing.T) {
	raw := chunk.Block{CID: chunk.SumRaw([]byte("x")), Data: []byte("x")}
	dir, nodes, err := chunk.DirDAG([]chunk.Child{{Name: "f", CID: raw.CID, Tsize: 1}})
	if err != nil {
		t.Fatal(err)
	}
	inline := []byte("\x0a\x07\x08\x02\x12\x01x\x18\x01") // a file with its bytes in the node, as older tools write it
	liar, lying, err := chunk.DirDAG([]chunk.Child{{Name: "f", CID: raw.CID, Tsize: 2}})
	if err != nil {
		t.Fatal(err)
	}
	whole := carFile(t, dir.CID, nodes[0], raw)
	data, err := os.ReadFile(whole)
	if err != nil {
		t.Fatal(err)
	}
	cut := filepath.Join(t.TempDir(), "cut.car")
	write(t, cut, data[:len(data)-1])
	bad := filepath.Join(t.TempDir(), "bad.car")
	write(t, bad, append(bytes.Clone(data[:len(data)-1]), 'y'))
	p := newPeer(t)
	for name, c := range map[string]struct {
		path string
		kind error
		want string
	}{
		"no such file":      {filepath.Join(t.TempDir(), "none.car"), os.ErrNotExist, "none.car"},
		"not a CAR file":    {nodeFile(t), car.ErrFormat, "header"},
		"cut":               {cut, car.ErrFormat, "ends inside"},
		"wrong bytes":       {bad, car.ErrFormat, "name of other bytes"},
		"a missing leaf":    {carFile(t, dir.CID, nodes[0]), ErrImport, raw.CID.String()},
		"a missing root":    {carFile(t, dir.CID, raw), ErrImport, dir.CID.String()},
		"another profile":   {carFile(t, chunk.SumNode(inline), chunk.Block{CID: chunk.SumNode(inline), Data: inline}), chunk.ErrTree, "profile"},
		"sizes that lie":    {carFile(t, liar.CID, lying[0], raw), chunk.ErrTree, "1 bytes where the tree says 2"},
		"a CARv1 of nobody": {manyRoots(t), ErrImport, "2 roots"},
	} {
		dest := filepath.Join(t.TempDir(), "dest")
		_, err := p.Import(testContext(t), c.path, ImportOptions{Dest: dest}, nil)
		if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if exists(dest) || exists(dest+block.PartialSuffix) {
			t.Errorf("%s: something was left behind", name)
		}
	}
	if _, err := p.Import(testContext(t), whole, ImportOptions{}, nil); err != nil {
		t.Error(err)
	}
}

func nodeFile(t testing.TB) string {
	path := filepath.Join(t.TempDir(), "text")
	write(t, path, []byte("this is no CAR file, but long enough"))
	return path
}

// manyRoots is a header with two roots, as DAG-CBOR has it.
func manyRoots(t testing.TB) string {
	one := car.AppendHeader(nil, chunk.SumRaw(nil))
	cid := one[bytes.IndexByte(one, 0xd8):][:2+2+1+36]
	h := append([]byte("\xa2\x65roots\x82"), cid...)
	h = append(append(h, cid...), "\x67version\x01"...)
	path := filepath.Join(t.TempDir(), "two.car")
	write(t, path, append([]byte{byte(len(h))}, h...))
	return path
}

// TestExportBesideADownload: an export leaves a partial alone that another download to the same path has begun.
func TestExportBesideADownload(t *testing.T) {
	a := newPeer(t)
	sh, err := a.Share(testContext(t), mixedFolder(t), ShareOptions{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	dest := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(dest+block.PartialSuffix, []byte("another's"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Export(testContext(t), chunk.Link{Root: sh.Root}, GetOptions{Dest: dest}, nil); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(dest + block.PartialSuffix); err != nil || string(got) != "another's" {
		t.Errorf("the other download has %q, %v", got, err)
	}
	if list, err := os.ReadDir(filepath.Dir(dest)); err != nil || len(list) != 2 {
		t.Errorf("there are %v, %v", list, err)
	}
}
