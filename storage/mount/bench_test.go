package mount_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/shoal-os/shoal/storage/mount"
	"github.com/shoal-os/shoal/storage/mount/mounttest"
)

// BenchmarkListing measures the answer to PROPFIND with Depth: 1 for a folder of 10,000 files.
func BenchmarkListing(b *testing.B) {
	fake := mounttest.NewFake()
	for i := range 10_000 {
		if _, err := fake.Put(b.Context(), fmt.Sprintf("/photo %d.jpg", i), strings.NewReader("x"), time.Now()); err != nil {
			b.Fatal(err)
		}
	}
	face := mount.Handler(fake, mount.Options{})
	for name, body := range map[string]string{
		"allprop": "",
		"finder": `<D:propfind xmlns:D="DAV:"><D:prop><D:getlastmodified/><D:getcontentlength/><D:creationdate/><D:resourcetype/>` +
			`</D:prop></D:propfind>`,
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r := httptest.NewRequestWithContext(b.Context(), "PROPFIND", "/", strings.NewReader(body))
				r.Header.Set("Depth", "1")
				w := httptest.NewRecorder()
				face.ServeHTTP(w, r)
				if w.Code != 207 {
					b.Fatal(w.Code)
				}
			}
		})
	}
}

// BenchmarkTransfer measures files of 256 MiB that no one else has, over loopback and the real tree and store, against
// the same over a face whose files are nothing.
func BenchmarkTransfer(b *testing.B) {
	const size = 256 << 20
	for name, open := range map[string]func(*testing.B) mount.FS{
		"tree":    func(b *testing.B) mount.FS { return openTree(b, openPieces(b, 64<<30)) },
		"nothing": func(*testing.B) mount.FS { return nothing{mounttest.NewFake()} },
	} {
		url, token := "", ""
		b.Run("put/"+name, func(b *testing.B) {
			url, token = serve(b, open(b), mount.Options{})
			b.SetBytes(size)
			seed := byte(0)
			for b.Loop() {
				seed++
				request(b, "PUT", url+"/f", token, io.LimitReader(rand.NewChaCha8([32]byte{seed}), size))
			}
		})
		b.Run("get/"+name, func(b *testing.B) {
			url, token = serve(b, open(b), mount.Options{})
			request(b, "PUT", url+"/f", token, io.LimitReader(rand.NewChaCha8([32]byte{}), size))
			b.SetBytes(size)
			for b.Loop() {
				request(b, "GET", url+"/f", token, nil)
			}
		})
	}
}

func request(b *testing.B, method, url, token string, body io.Reader) {
	r, err := http.NewRequestWithContext(b.Context(), method, url, body)
	if err != nil {
		b.Fatal(err)
	}
	r.SetBasicAuth("", token)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode >= 300 {
		b.Fatal(resp.Status, err)
	}
}

// nothing has one file of zeros, and forgets what is put.
type nothing struct{ *mounttest.Fake }

// Put implements mount.FS.
func (n nothing) Put(_ context.Context, p string, body io.Reader, at time.Time) (mount.Info, error) {
	size, err := io.Copy(io.Discard, body)
	return mount.Info{Name: p[1:], Size: size, ModTime: at, Tag: "t"}, err
}

// Open implements mount.FS.
func (n nothing) Open(context.Context, string) (mount.File, error) { return zeros{}, nil }

type zeros struct{}

func (zeros) ReadAt(b []byte, _ int64) (int, error) { return len(b), nil }
func (zeros) Close() error                          { return nil }
func (zeros) Info() mount.Info                      { return mount.Info{Name: "f", Size: 256 << 20, Tag: "t"} }
