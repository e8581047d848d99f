package mount

import (
	"reflect"
	"strings"
	"testing"
)

func TestParseIf(t *testing.T) {
	token := func(s string) condition { return condition{token: s} }
	for text, want := range map[string][]stateList{
		`(<a>)`:                        {{"", []condition{token("a")}}},
		` ( <a> ["e"] )  (Not <b>) `:   {{"", []condition{token("a"), {etag: `"e"`}}}, {"", []condition{{not: true, token: "b"}}}},
		`(not<b>)`:                     {{"", []condition{{not: true, token: "b"}}}},
		`<http://h/x> (<a>) ([W/"e"])`: {{"http://h/x", []condition{token("a")}}, {"http://h/x", []condition{{etag: `W/"e"`}}}},
		`</x> (<a>) </y> (<b>)`:        {{"/x", []condition{token("a")}}, {"/y", []condition{token("b")}}},
		``:                             nil, `()`: nil, `(<a>`: nil, `<a>`: nil, `(<a>) <x>`: nil, `</x> </y> (<a>)`: nil, `(a)`: nil,
		`(<a>) </x> (<b>)`: nil, `(<>)`: nil, `([])`: nil, `(Not)`: nil, `x`: nil, `(<a>) x`: nil, `</x> (<a>) </y>`: nil,
		strings.Repeat("(<a>)", ifPartsMax+1):           nil,
		"(" + strings.Repeat("<a>", ifPartsMax+2) + ")": nil,
		"(<" + strings.Repeat("a", ifLenMax) + ">)":     nil,
	} {
		got, ok := parseIf(text)
		if ok != (want != nil) || ok && !reflect.DeepEqual(got, want) {
			t.Errorf("parseIf(%.40q) = %v, %v; want %v", text, got, ok, want)
		}
	}
}

// FuzzIf checks that what is taken is bounded, and says what it is about.
func FuzzIf(f *testing.F) {
	f.Add(`(<a> ["e"]) (Not <b>)`)
	f.Add(`<http://h/x> (<a>) ([W/"e"])`)
	f.Fuzz(func(t *testing.T, s string) {
		lists, ok := parseIf(s)
		parts := 0
		for _, l := range lists {
			parts += len(l.conds)
			for _, c := range l.conds {
				if (c.token == "") == (c.etag == "") {
					t.Fatalf("%+v", c)
				}
			}
			if len(l.conds) == 0 {
				t.Fatal("an empty list")
			}
		}
		if ok != (parts > 0) || parts > ifPartsMax {
			t.Fatalf("%v with %d conditions", ok, parts)
		}
	})
}
