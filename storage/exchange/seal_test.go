package exchange

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
)

var testKey = bytes.Repeat([]byte{7}, laneKey)

// sealed is what a laneWriter sends for writes of these parts, and its end.
func sealed(t testing.TB, parts ...[]byte) []byte {
	t.Helper()
	a, b := net.Pipe()
	out := make(chan []byte)
	go func() {
		data, _ := io.ReadAll(b)
		out <- data
	}()
	s, err := newSealing(testKey)
	if err != nil {
		t.Fatal(err)
	}
	w := &laneWriter{conn: a, sealing: s}
	for _, p := range parts {
		if n, err := w.Write(p); err != nil || n != len(p) {
			t.Fatal(n, err)
		}
	}
	if err := w.end(); err != nil {
		t.Fatal(err)
	}
	return <-out
}

func opened(t testing.TB, sealed []byte, atATime int) ([]byte, error) {
	t.Helper()
	r, err := newLaneReader(bytes.NewReader(sealed), &Lane{Key: testKey})
	if err != nil {
		t.Fatal(err)
	}
	var out []byte
	buf := make([]byte, atATime)
	for {
		n, err := r.Read(buf)
		out = append(out, buf[:n]...)
		if err != nil {
			return out, err
		}
	}
}

func TestSealing(t *testing.T) {
	parts := [][]byte{
		noise(1, 1), noise(2, recordMax), noise(3, recordMax+1), noise(4, 1<<20+leafHeader), noise(5, 100), nil, noise(6, 3*recordMax-1),
	}
	all, plain := sealed(t, parts...), bytes.Join(parts, nil)
	for _, size := range []int{1 << 20, recordMax, 1000, 7} {
		if got, err := opened(t, all, size); err != io.EOF || !bytes.Equal(got, plain) {
			t.Fatalf("by %d: %d bytes of %d, %v", size, len(got), len(plain), err)
		}
	}
	if bytes.Contains(all, plain[10:40]) {
		t.Error("it is not sealed")
	}
	// A leaf's bytes begin a record of their own, so that they are opened straight into their place.
	r, _ := newLaneReader(bytes.NewReader(sealed(t, noise(4, 1<<20+leafHeader))), &Lane{Key: testKey})
	buf := make([]byte, 1<<20)
	if n, err := r.Read(buf); n != leafHeader || err != nil {
		t.Errorf("first %d, %v", n, err)
	}
	if n, err := r.Read(buf); n != recordMax || err != nil {
		t.Errorf("then %d, %v", n, err)
	}
}

func TestSealingNoticesAll(t *testing.T) {
	one, two := noise(1, 300), noise(2, 300)
	all := sealed(t, one, two)
	record := recordHead + 300 + sealTag
	for at := range all {
		bad := bytes.Clone(all)
		bad[at] ^= 16
		if got, err := opened(t, bad, 1000); err == nil || err == io.EOF {
			t.Fatalf("byte %d was changed: %d bytes, %v", at, len(got), err)
		}
	}
	for n := range len(all) {
		if got, err := opened(t, all[:n], 1000); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("cut after %d: %d bytes, %v", n, len(got), err)
		}
	}
	for name, bad := range map[string][]byte{
		"in another order": bytes.Join([][]byte{all[record : 2*record], all[:record], all[2*record:]}, nil),
		"twice":            bytes.Join([][]byte{all[:record], all[:record]}, nil),
		"one left out":     all[record:],
	} {
		if _, err := opened(t, bad, 1000); !errors.Is(err, errLane) {
			t.Errorf("%s: %v", name, err)
		}
	}
	s := sealing{bytes: laneBytes}
	if _, err := s.nonce(1); !errors.Is(err, errLaneLong) {
		t.Errorf("%v", err)
	}
}

func FuzzLaneReader(f *testing.F) {
	f.Add(sealed(f, noise(1, 10), noise(2, 1000)), 100)
	f.Add([]byte{0, 0, 0, 16}, 1)
	f.Add([]byte{255, 255, 255, 255, 1, 2, 3}, 5)
	f.Fuzz(func(t *testing.T, b []byte, size int) {
		if got, err := opened(t, b, 1+min(max(size, 0), recordMax)); err == nil || len(got) > len(b) {
			t.Errorf("%d bytes of %d, %v", len(got), len(b), err)
		}
	})
}
