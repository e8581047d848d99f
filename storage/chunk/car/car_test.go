package car

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/shoal-os/shoal/storage/chunk"
)

// file writes a CAR file of raw blocks, the first of which is its root.
func file(blocks ...[]byte) []byte {
	b := AppendHeader(nil, chunk.SumRaw(blocks[0]))
	for _, data := range blocks {
		b = append(AppendBlock(b, chunk.SumRaw(data), len(data)), data...)
	}
	return b
}

// wrap puts a CARv1 file into a CARv2 file, with padding before and an index behind.
func wrap(v1 []byte, padding int) []byte {
	b := append([]byte(pragma), make([]byte, v2HeaderLen)...)
	h := b[len(pragma):]
	binary.LittleEndian.PutUint64(h[v2DataOffset:], uint64(len(pragma)+v2HeaderLen+padding))
	binary.LittleEndian.PutUint64(h[v2DataSize:], uint64(len(v1)))
	b = append(b, make([]byte, padding)...)
	return append(append(b, v1...), "an index, whatever it says"...)
}

// readAll reads a file to its end.
func readAll(data []byte) (roots []chunk.CID, blocks [][]byte, err error) {
	r, err := NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, nil, err
	}
	for {
		id, block, offset, err := r.Next()
		if errors.Is(err, io.EOF) {
			return r.Roots(), blocks, nil
		}
		if err != nil {
			return r.Roots(), blocks, err
		}
		if !bytes.Equal(data[offset:][:len(block)], block) || id.Sum != chunk.SumRaw(block).Sum {
			return nil, nil, errors.New("the block is not where it is said to be")
		}
		blocks = append(blocks, bytes.Clone(block))
	}
}

func TestReadBack(t *testing.T) {
	want := [][]byte{[]byte("one"), nil, bytes.Repeat([]byte{7}, 1<<20), []byte("four")}
	for name, data := range map[string][]byte{"v1": file(want...), "v2": wrap(file(want...), 0), "v2 padded": wrap(file(want...), 1000)} {
		roots, got, err := readAll(data)
		if err != nil || len(roots) != 1 || roots[0] != chunk.SumRaw(want[0]) || len(got) != len(want) {
			t.Fatalf("%s: roots %v, %d blocks, %v", name, roots, len(got), err)
		}
		for i := range want {
			if !bytes.Equal(got[i], want[i]) {
				t.Errorf("%s: block %d has %d bytes", name, i, len(got[i]))
			}
		}
	}
}

// TestHeaderBytes holds the header to the bytes of another implementation (the
// fixtures of the CARv1 specification begin like this, for their own roots).
func TestHeaderBytes(t *testing.T) {
	root := chunk.SumRaw([]byte("x"))
	want := "3a" + "a2" + hex.EncodeToString([]byte("\x65roots")) + "81" + "d82a5825" + "00" + hex.EncodeToString(root.Bytes()) +
		hex.EncodeToString([]byte("\x67version")) + "01"
	if got := hex.EncodeToString(AppendHeader(nil, root)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestSpecifiedFixture reads the start of carv1-basic.car of the specification:
// two roots, both of codecs or kinds that only sometimes are known here.
func TestSpecifiedFixture(t *testing.T) {
	header, err := hex.DecodeString("63a265726f6f747382d82a58250001711220f88bc853804cf294fe417e4fa83028689fcdb1b1592c5102e1474dbc200fab8bd82a5825000171122069ea0740f9807a28f4d932c62e7c1c83be055e55072c90266ab3e79df63a365b6776657273696f6e01")
	if err != nil {
		t.Fatal(err)
	}
	_, err = NewReader(bytes.NewReader(header))
	if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "root 1") || !strings.Contains(err.Error(), "0x71") {
		t.Errorf("a root of DAG-CBOR: %v", err)
	}
}

func TestHostileFiles(t *testing.T) {
	good := file([]byte("one"), []byte("two"))
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"empty":             {nil, "no header"},
		"text":              {[]byte("hello, world, this is not it"), "its header"},
		"cut in the header": {good[:20], "ends inside its header"},
		"cut in a block":    {good[:len(good)-1], "the file ends inside it"},
		"cut behind one":    {append(bytes.Clone(good), 0x30), "the file ends inside it"},
		"cut in a length":   {append(bytes.Clone(good), 0x80), "the file ends inside it"},
		"wrong bytes":       {append(bytes.Clone(good[:len(good)-1]), '!'), "the name of other bytes"},
		"long header":       {append(binary.AppendUvarint(nil, headerMax+1), make([]byte, headerMax+1)...), "more than"},
		"huge block":        {append(bytes.Clone(good), binary.AppendUvarint(nil, 1<<40)...), "more than"},
		"no name":           {append(bytes.Clone(good), 1, 0), "block at byte"},
		"nothing":           {append(bytes.Clone(good), 0), "block at byte"},
		"long length":       {append(bytes.Clone(good), bytes.Repeat([]byte{0xff}, 12)...), "too long"},
		"padded length":     {append(bytes.Clone(good), 0x85, 0x00), "shortest form"},
		"version 3":         {bytes.Replace(good, []byte("version\x01"), []byte("version\x03"), 1), "version 3"},
		"v2 cut":            {wrap(good, 0)[:30], "ends inside the header of CARv2"},
		"v2 cut in data":    {wrap(good, 0)[:len(pragma)+v2HeaderLen+70], "ends"},
		"v2 without data":   {wrap(nil, 0), "puts 0 bytes"},
		"v2 far away":       {wrap(good, v2PaddingMax+1), "puts"},
	} {
		_, _, err := readAll(c.data)
		if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzReader(f *testing.F) {
	good := file([]byte("one"), nil, []byte("three"))
	f.Add(good)
	f.Add(wrap(good, 3))
	f.Add(good[:len(good)-2])
	f.Add([]byte(pragma))
	f.Fuzz(func(t *testing.T, data []byte) {
		roots, blocks, err := readAll(data)
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatal(err)
			}
			return
		}
		if len(roots) != 1 || bytes.HasPrefix(data, []byte(pragma)) {
			return
		}
		// One encoding of each thing: what was accepted is what would be written,
		// but for names in CIDv0, which are read and not written.
		again := AppendHeader(nil, roots[0])
		if !bytes.HasPrefix(data, again) {
			return
		}
		for _, b := range blocks {
			again = append(AppendBlock(again, chunk.SumRaw(b), len(b)), b...)
		}
		if len(again) < len(data)-64*len(blocks) || len(again) > len(data)+64*len(blocks)+8 {
			t.Fatalf("%d bytes were read and %d would be written", len(data), len(again))
		}
	})
}
