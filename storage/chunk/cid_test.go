package chunk

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	gocid "github.com/ipfs/go-cid"
	"github.com/multiformats/go-multibase"
	"pgregory.net/rapid"
)

func drawCID(t *rapid.T) CID {
	sum := rapid.SliceOfN(rapid.Byte(), hashLen, hashLen).Draw(t, "sum")
	return CID{rapid.SampledFrom([]Codec{Raw, DagPB}).Draw(t, "codec"), [hashLen]byte(sum)}
}

// TestCIDForms: every form of a CID reads back as the same CID, and go-cid agrees.
func TestCIDForms(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := drawCID(t)
		g, err := gocid.Cast(c.Bytes())
		if err != nil || g.String() != c.String() {
			t.Fatalf("go-cid reads %v as %v, error %v", c, g, err)
		}
		base := rapid.SampledFrom([]multibase.Encoding{multibase.Base32, multibase.Base32Upper, multibase.Base36,
			multibase.Base58BTC, multibase.Base64url, multibase.Base16}).Draw(t, "base")
		text, err := g.StringOfBase(base)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := ParseCID(text); err != nil || got != c {
			t.Fatalf("%s is %v, error %v", text, got, err)
		}
		tail := rapid.SliceOf(rapid.Byte()).Draw(t, "tail")
		if got, n, err := CIDFromBytes(append(c.Bytes(), tail...)); err != nil || got != c || n != cidLen {
			t.Fatalf("bytes give %v, %d, error %v", got, n, err)
		}
		js, err := json.Marshal(map[CID]CID{c: c})
		if err != nil {
			t.Fatal(err)
		}
		var back map[CID]CID
		if err := json.Unmarshal(js, &back); err != nil || back[c] != c {
			t.Fatalf("%s gives %v, error %v", js, back, err)
		}
	})
}

func TestCIDVersion0(t *testing.T) {
	const v0, v1 = "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn", "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354"
	c, err := ParseCID(v0)
	if err != nil || c.String() != v1 || c.IsRaw() {
		t.Fatalf("%v, error %v", c, err)
	}
	got, n, err := CIDFromBytes(append([]byte{hashSHA256, hashLen}, c.Sum[:]...))
	if err != nil || got != c || n != cidLenV0 {
		t.Fatalf("%v, %d, error %v", got, n, err)
	}
}

func TestUndefinedCID(t *testing.T) {
	var c CID
	if c.Defined() || c.IsRaw() || c.String() != "" || c.Bytes() != nil {
		t.Errorf("undefined CID: %q %v", c.String(), c.Bytes())
	}
	js, err := json.Marshal(c)
	if err != nil || string(js) != `""` {
		t.Errorf("JSON %s, error %v", js, err)
	}
	c = leaf
	if err := json.Unmarshal(js, &c); err != nil || c.Defined() {
		t.Errorf("from JSON: %v, error %v", c, err)
	}
}

func TestBadCIDs(t *testing.T) {
	good := SumRaw(nil).String()
	for text, want := range map[string]string{
		"":                          "empty",
		"b":                         "cut short",
		good[:58]:                   "cut short",
		good + "a":                  "60 characters",
		good[:58] + "v":             "mistyped",
		good[:30] + "1" + good[31:]: "not base32",
		strings.Repeat("z", 300):    "300 characters",
		"hello world":               "not a CID",
		"Qm":                        "not a CID",
		// dag-cbor, then sha2-512
		"bafyreihyrpefhacm6kkp4ql6j6udakdit7g3dmkzfriqfykhjw6cad5lrm":                                                    "only raw and dag-pb",
		"bafkrgqe3ohjcjplc6n4f3fwunlj6upltpinqb5ufrinuufk5ycvxb3ap3xdpeqxgvs3ydxr5bwllo5ocxg27xj5ik3euqbxbchgllaqmhxoyi": "",
	} {
		_, err := ParseCID(text)
		if err == nil {
			t.Errorf("%q: no error", text)
		} else if !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %q does not mention %q", text, err, want)
		}
	}
	cid := leaf.Bytes()
	for _, b := range [][]byte{nil, cid[:35], {0x12}, {0x12, 0x20, 1}, append([]byte{2}, cid[1:]...),
		append([]byte{1, 0x71}, cid[2:]...), append([]byte{1, 0x55, 0x13, 64}, cid[4:]...)} {
		if c, n, err := CIDFromBytes(b); err == nil || n != 0 {
			t.Errorf("%x gives %v, %d", b, c, n)
		}
	}
}

func TestCompare(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawCID(t), drawCID(t)
		if got, want := a.Compare(b), bytes.Compare(a.Bytes(), b.Bytes()); got > 0 != (want > 0) || got < 0 != (want < 0) {
			t.Fatalf("%v, %v: %d, want %d", a, b, got, want)
		}
	})
}

func FuzzParseCID(f *testing.F) {
	f.Add(leaf.String())
	f.Add("QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn")
	f.Add("zb2rhe5P4gXftAwvA4eXQ5HJwsER2owDyS9sKaQRRVQPn93bA")
	f.Add("F01551220E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855")
	f.Fuzz(func(t *testing.T, s string) {
		c, err := ParseCID(s)
		if err != nil {
			if len(err.Error()) > 1000 {
				t.Fatalf("error of %d bytes", len(err.Error()))
			}
			return
		}
		if back, err := ParseCID(c.String()); err != nil || back != c {
			t.Fatalf("%v reads back as %v, error %v", c, back, err)
		}
	})
}

func FuzzCIDFromBytes(f *testing.F) {
	f.Add(leaf.Bytes())
	f.Add(append([]byte{0x12, 0x20}, leaf.Sum[:]...))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, n, err := CIDFromBytes(b)
		if err != nil {
			return
		}
		if n == cidLen && !bytes.Equal(c.Bytes(), b[:n]) {
			t.Fatalf("%x reads back as %x", b, c.Bytes())
		}
	})
}
