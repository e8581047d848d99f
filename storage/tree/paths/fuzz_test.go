package paths

import "testing"

// FuzzClean makes a path of any text: what comes out is one, and cleaning it again changes nothing.
func FuzzClean(f *testing.F) {
	for _, s := range []string{"", "/", "a//b/", "/e\u0301/..", "/\u212a", "/\u0344", "/a/./b", "/\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := Clean(s)
		if err != nil {
			return
		}
		if err := Check(p); err != nil {
			t.Fatalf("%q: %v", p, err)
		}
		if again, err := Clean(p); err != nil || again != p {
			t.Fatalf("%q becomes %q, %v", p, again, err)
		}
		if p != Root {
			dir, name := Split(p)
			if Join(dir, name) != p || !Inside(p, dir) {
				t.Fatalf("%q falls into %q and %q", p, dir, name)
			}
			if f := Fold(name); Fold(f) != f {
				t.Fatalf("%q folds to %q, and that to %q", name, f, Fold(f))
			}
		}
	})
}
