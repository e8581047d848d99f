package job

import (
	"fmt"
	"reflect"
	"testing"

	"github.com/shoal-os/shoal/storage/chunk"
)

func TestManifest(t *testing.T) {
	var list []Output
	for i := range 1000 {
		list = append(list, Output{Name: fmt.Sprintf("d/%d", i), Mode: 0o644, Inline: []byte{byte(i)}})
	}
	list = append(list, Output{Name: "large", File: File{Root: chunk.SumRaw(nil), Size: 9}})
	raw, err := EncodeManifest(list)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := DecodeManifest(raw); err != nil || !reflect.DeepEqual(got, list) {
		t.Errorf("%d outputs, %v", len(got), err)
	}
	for _, bad := range [][]Output{{{Name: ""}}, {{Name: "a"}, {Name: "a"}}, {{Name: "../a"}}, make([]Output, ManifestFiles+1)} {
		if _, err := EncodeManifest(bad); err == nil {
			t.Errorf("%d outputs were listed", len(bad))
		}
	}
	r := Result{Outputs: []Output{{File: File{Root: chunk.SumRaw(nil), Size: 9}}}}
	if _, ok := r.Manifest(); !ok {
		t.Error("a manifest is not known as one")
	}
}

func FuzzManifest(f *testing.F) {
	raw, err := EncodeManifest([]Output{{Name: "a", Inline: []byte("x")}, {Name: "b", File: File{Root: chunk.SumRaw(nil), Size: 9}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		list, err := DecodeManifest(raw)
		if err != nil {
			return
		}
		again, err := EncodeManifest(list)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := DecodeManifest(again); err != nil || !reflect.DeepEqual(got, list) {
			t.Errorf("%+v became %+v, %v", list, got, err)
		}
	})
}
