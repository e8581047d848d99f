package chunk

import (
	"strings"
	"testing"
)

func TestCheckName(t *testing.T) {
	const everywhere, windows, nowhere = "everywhere", "not on windows", "nowhere"
	for name, where := range map[string]string{
		"a.txt": everywhere, ".hidden": everywhere, "with space": everywhere, "...x": everywhere, "日本語.txt": everywhere,
		"שלום": everywhere, "🐟": everywhere, "a%20b": everywhere, "-rf": everywhere, "CONSOLE": everywhere, "COM": everywhere,
		"COM10": everywhere, "nul_": everywhere, strings.Repeat("n", 255): everywhere,
		"a\\b": windows, "a:b": windows, "what?": windows, "a*": windows, "<a>": windows, "a|b": windows, `"a"`: windows,
		"dot.": windows, "...": windows, "space ": windows, "CON": windows, "con": windows, "Aux.txt": windows, "nul.tar.gz": windows,
		"NUL .txt": windows, "COM1": windows, "lpt9.log": windows, "COM²": windows, "CONIN$": windows,
		"": nowhere, ".": nowhere, "..": nowhere, "/": nowhere, "a/b": nowhere, "a\x00": nowhere, "\t": nowhere, "a\x7f": nowhere,
		"a\u0085": nowhere, "\xff": nowhere, "é\xc3": nowhere, strings.Repeat("n", 256): nowhere, strings.Repeat("é", 128): nowhere,
	} {
		for _, goos := range []string{"", "linux", "darwin", "windows"} {
			want := where == everywhere || where == windows && goos != "windows"
			if err := CheckName(name, goos); (err == nil) != want {
				t.Errorf("%q on %q: error %v", name, goos, err)
			}
		}
	}
}

func TestCheckTarget(t *testing.T) {
	for _, ok := range []string{"a", "../..", "/etc/passwd", "\xff", strings.Repeat("t", 4096)} {
		if err := CheckTarget(ok); err != nil {
			t.Errorf("%q: %v", ok, err)
		}
	}
	for _, bad := range []string{"", "a\x00", strings.Repeat("t", 4097)} {
		if err := CheckTarget(bad); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}
