package wire

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"

	"github.com/libp2p/go-libp2p/core/network"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func frame(t testing.TB, data []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	if err := WriteMsg(&buf, wrapperspb.Bytes(data), 1<<30); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestRoundTrip(t *testing.T) {
	for _, size := range []int{0, 1, 127, 128, readStep - 4, readStep, 3*readStep + 1} {
		data := bytes.Repeat([]byte{'x'}, size)
		raw := append(frame(t, data), "the frames that follow"...)
		for name, wrap := range map[string]func(io.Reader) io.Reader{
			"plain":    func(r io.Reader) io.Reader { return struct{ io.Reader }{r} },
			"buffered": func(r io.Reader) io.Reader { return bufio.NewReader(r) },
			"bytewise": iotest.OneByteReader,
			"data+EOF": iotest.DataErrReader,
		} {
			r := wrap(bytes.NewReader(raw))
			got := wrapperspb.Bytes([]byte("old"))
			if err := ReadMsg(r, got, 1<<20); err != nil {
				t.Fatalf("%s, %d bytes: %v", name, size, err)
			}
			if !bytes.Equal(got.Value, data) {
				t.Errorf("%s, %d bytes: got %d", name, size, len(got.Value))
			}
			if rest, err := io.ReadAll(r); err != nil || string(rest) != "the frames that follow" {
				t.Errorf("%s, %d bytes: left %q, %v", name, size, rest, err)
			}
		}
	}
}

func TestWriteIsBounded(t *testing.T) {
	var buf bytes.Buffer
	err := WriteMsg(&buf, wrapperspb.Bytes(make([]byte, 100)), 100)
	if KindOf(err) != TooLarge || buf.Len() != 0 {
		t.Errorf("%v, %d bytes written", err, buf.Len())
	}
	broken := errors.New("broken")
	if err := WriteMsg(iotest.TruncateWriter(failWriter{broken}, 0), wrapperspb.Bytes(nil), 10); err != nil {
		t.Errorf("a writer that swallows everything: %v", err)
	}
	if err := WriteMsg(failWriter{broken}, wrapperspb.Bytes(nil), 10); !errors.Is(err, broken) {
		t.Errorf("the writer's error is lost: %v", err)
	}
}

type failWriter struct{ err error }

func (w failWriter) Write([]byte) (int, error) { return 0, w.err }

func TestReadErrors(t *testing.T) {
	whole := frame(t, []byte("hello"))
	for _, c := range []struct {
		name string
		raw  []byte
		kind ErrKind
		is   error
	}{
		{"nothing", nil, Unknown, io.EOF},
		{"a cut length", []byte{0x80}, Unknown, io.ErrUnexpectedEOF},
		{"a cut message", whole[:4], Unknown, io.ErrUnexpectedEOF},
		{"only a length", whole[:1], Unknown, io.ErrUnexpectedEOF},
		{"over the limit", binary.AppendUvarint(nil, 101), TooLarge, nil},
		{"far over the limit", binary.AppendUvarint(nil, 1<<34), TooLarge, nil},
		{"a length of six bytes", []byte{0x81, 0x81, 0x81, 0x81, 0x81, 0}, Malformed, nil},
		{"a needless byte", []byte{0x81, 0}, Malformed, nil},
		{"no protobuf", []byte{2, 0xff, 0xff}, Malformed, nil},
		{"another type", []byte{2, 0x08, 0x01}, Unknown, nil},
	} {
		err := ReadMsg(bytes.NewReader(c.raw), &wrapperspb.BytesValue{}, 100)
		if c.name == "another type" { // an unknown field, which a newer peer may send
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		if err == nil || KindOf(err) != c.kind || c.is != nil && !errors.Is(err, c.is) {
			t.Errorf("%s: %v (kind %v)", c.name, err, KindOf(err))
		}
		if c.is == io.EOF != (err == io.EOF) {
			t.Errorf("%s: the end of the stream is %v", c.name, err)
		}
	}
	broken := errors.New("broken")
	if err := ReadMsg(iotest.ErrReader(broken), &wrapperspb.BytesValue{}, 10); !errors.Is(err, broken) {
		t.Errorf("the reader's error is lost: %v", err)
	}
	if err := ReadMsg(bytes.NewReader([]byte{0}), &wrapperspb.BytesValue{}, -1); KindOf(err) != TooLarge {
		t.Errorf("a negative limit: %v", err)
	}
}

// A claimed length alone must not cost memory.
func TestMemoryFollowsTheData(t *testing.T) {
	head := binary.AppendUvarint(nil, 1<<30)
	per := testing.AllocsPerRun(10, func() {
		err := ReadMsg(bytes.NewReader(head), &wrapperspb.BytesValue{}, 1<<30)
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatal(err)
		}
	})
	if per > 50 {
		t.Errorf("%v allocations", per)
	}
	if buf, err := readExactly(bytes.NewReader(make([]byte, 100)), 1<<30); err == nil || buf != nil {
		t.Errorf("%d bytes, %v", len(buf), err)
	}
}

func FuzzReadMsg(f *testing.F) {
	f.Add(frame(f, []byte("hello")))
	f.Add(frame(f, nil))
	f.Add([]byte{0x80, 0x80, 0x04})
	f.Add([]byte{0x81, 0})
	f.Fuzz(func(t *testing.T, raw []byte) {
		const limit = 1 << 16
		r := bytes.NewReader(raw)
		var m wrapperspb.BytesValue
		if err := ReadMsg(r, &m, limit); err != nil {
			return
		}
		if proto.Size(&m) > limit {
			t.Errorf("a message of %d bytes passed", proto.Size(&m))
		}
		var buf bytes.Buffer
		if err := WriteMsg(&buf, &m, limit); err != nil {
			t.Fatal(err)
		}
		var again wrapperspb.BytesValue
		if err := ReadMsg(&buf, &again, limit); err != nil || !proto.Equal(&m, &again) {
			t.Errorf("read back %v, %v", &again, err)
		}
	})
}

func TestErrors(t *testing.T) {
	err := fmt.Errorf("get: %w", Errorf(NotFound, "no root %d", 7))
	if KindOf(err) != NotFound || err.Error() != "get: not found: no root 7" {
		t.Errorf("%v is of kind %v", err, KindOf(err))
	}
	if !errors.Is(err, &Error{Kind: NotFound}) || errors.Is(err, &Error{Kind: Busy}) {
		t.Error("errors.Is does not go by the kind")
	}
	if errors.Is(err, &Error{Kind: NotFound, Text: "other"}) {
		t.Error("errors.Is ignores a text that was asked for")
	}
	if KindOf(nil) != Unknown || KindOf(io.EOF) != Unknown {
		t.Error("a kind for what has none")
	}
	if got := (&Error{Kind: Busy}).Error(); got != "busy" {
		t.Error(got)
	}
	seen := map[string]bool{}
	for k := range KindMax + 2 {
		if seen[k.String()] {
			t.Errorf("two kinds are called %q", k)
		}
		seen[k.String()] = true
	}
}

// fakeStream notes how it was reset.
type fakeStream struct {
	network.Stream
	code network.StreamErrorCode
}

func (s *fakeStream) ResetWithError(code network.StreamErrorCode) error {
	s.code = code
	return nil
}

func TestResetCarriesTheKind(t *testing.T) {
	for k := range KindMax + 1 {
		var s fakeStream
		if err := Reset(&s, fmt.Errorf("op: %w", Errorf(k, "text"))); err != nil {
			t.Fatal(err)
		}
		remote := fmt.Errorf("read: %w", &network.StreamError{ErrorCode: s.code, Remote: true})
		if got, ok := ResetKind(remote); got != k || !ok || KindOf(remote) != k {
			t.Errorf("kind %v arrived as %v, %v", k, got, ok)
		}
		if _, ok := ResetKind(&network.StreamError{ErrorCode: s.code}); ok {
			t.Error("an own reset counts as the other side's")
		}
	}
	var s fakeStream
	if err := Reset(&s, &Error{Kind: resetSpan + 5}); err != nil || s.code != resetBase {
		t.Errorf("an impossible kind resets with %#x, %v", s.code, err)
	}
	for _, code := range []network.StreamErrorCode{0, network.StreamResourceLimitExceeded, resetBase - 1, resetBase + resetSpan} {
		if _, ok := ResetKind(&network.StreamError{ErrorCode: code, Remote: true}); ok {
			t.Errorf("code %#x counts as ours", code)
		}
	}
}

func TestCleanText(t *testing.T) {
	long := strings.Repeat("é", TextMax)
	for in, want := range map[string]string{
		"":                   "",
		"plain text":         "plain text",
		"two\nlines\tand":    "two lines and",
		"\x1b[31mred\x07":    "[31mred",
		"evil\u202egnp.exe":  "evilgnp.exe",
		"family 👨\u200d👩":    "family 👨\u200d👩",
		"می\u200cخواهم":      "می\u200cخواهم",
		"bad\xffutf8\u2028x": "badutf8 x",
		"\u009b2J":           "2J",
		long:                 long[:TextMax] + "…",
	} {
		if got := CleanText(in); got != want {
			t.Errorf("CleanText(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzCleanText(f *testing.F) {
	f.Add("plain")
	f.Add("\x1b]0;x\x07\u202e")
	f.Fuzz(func(t *testing.T, s string) {
		got := CleanText(s)
		if len(got) > TextMax+len("…") || !utf8.ValidString(got) {
			t.Errorf("CleanText(%q) = %q", s, got)
		}
		for _, r := range got {
			if r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u202e' {
				t.Errorf("%q passed in %q", r, got)
			}
		}
	})
}
