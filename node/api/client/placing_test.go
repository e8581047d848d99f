package client

import (
	"slices"
	"testing"
)

func TestPlacing(t *testing.T) {
	p := Placing{Tasks: 12, Streams: true}
	var paths []string
	for i := range 3 {
		for _, f := range p.Place(TaskResult{Task: i, Stdout: JobStream{Size: int64(i)}, Outputs: []JobOutput{{Name: "a.txt"}, {Name: "sub/b"}}}) {
			paths = append(paths, f.Path)
		}
	}
	want := []string{"a.txt", "sub/b", "01.stdout", "01/a.txt", "01/sub/b", "02.stdout", "02/a.txt", "02/sub/b"}
	if !slices.Equal(paths, want) {
		t.Errorf("%q, want %q", paths, want)
	}
	one := Placing{Tasks: 1, Streams: true}
	if got := one.Place(TaskResult{Stdout: JobStream{Size: 1}}); len(got) != 1 || got[0].Path != "stdout" || got[0].Part != OutputStdout {
		t.Errorf("%+v", got)
	}
	if got := (&Placing{Tasks: 1}).Place(TaskResult{Stdout: JobStream{Size: 1}}); len(got) != 0 {
		t.Errorf("%+v", got)
	}
}
