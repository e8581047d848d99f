package cli

import (
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/shoal-os/shoal/node/api/client"
)

// TestHalfAFile: what was not fetched whole has not the name of the whole, and what was there under it stays.
func TestHalfAFile(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	half := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000")
		_, _ = io.WriteString(w, "half")
	})}
	go func() { _ = half.Serve(l) }()
	defer half.Close()
	dir := t.TempDir()
	d := &target{local: dir}
	defer d.close()
	c := client.New(dir, client.Endpoint{Network: "tcp", Address: l.Addr().String()})
	if err := d.write(t.Context(), c, "job", client.Placed{Path: "sub/new", Size: 1000}); err == nil {
		t.Error("half a file is a file")
	}
	if err := d.write(t.Context(), c, "job", client.Placed{Path: "old", Size: 3, Inline: []byte("old"), Mode: 0o755}); err != nil {
		t.Fatal(err)
	}
	if err := d.write(t.Context(), c, "job", client.Placed{Path: "old", Size: 1000}); err == nil {
		t.Error("half a file is a file")
	}
	if raw, err := os.ReadFile(filepath.Join(dir, "old")); string(raw) != "old" {
		t.Errorf("%q, %v", raw, err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*", "*")); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
	if d.files != 1 || d.bytes != 3 {
		t.Errorf("%d files, %d bytes", d.files, d.bytes)
	}
}
