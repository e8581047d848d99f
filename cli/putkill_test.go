package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/shoal-os/shoal/node/api/client"
)

const (
	killedPuts  = 10
	killedFiles = 60
)

// killable is a peer in a process of its own, which the test kills.
type killable struct {
	t    *testing.T
	home string
	cmd  *exec.Cmd
	log  bytes.Buffer
}

// up starts it and returns once it answers.
func (k *killable) up() *client.Client {
	k.t.Helper()
	k.cmd = exec.Command("shoal", "--home", k.home, "up", "--name", "kay", "--store", "500MiB", "--patience", "2s")
	k.cmd.Env = append(os.Environ(), "SHOAL_LISTEN=/ip4/127.0.0.1/tcp/0", "SHOAL_LAN=false", "GORACE=atexit_sleep_ms=0")
	k.cmd.Stderr = &k.log
	if err := k.cmd.Start(); err != nil {
		k.t.Fatal(err)
	}
	var c *client.Client
	if !eventually(func() bool {
		var err error
		if c, err = client.Open(k.home); err != nil {
			return false
		}
		if _, err = c.Status(context.Background()); err != nil {
			c.Close()
		}
		return err == nil
	}) {
		k.t.Fatalf("the peer does not answer\n%s", k.log.String())
	}
	return c
}

func (k *killable) kill() {
	_ = k.cmd.Process.Kill()
	_ = k.cmd.Wait()
}

// writeTreeOf makes a folder of small files and two large ones, all of which tell their generation.
func writeTreeOf(t *testing.T, dir string, generation int) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range killedFiles {
		size := 2000
		if i < 2 {
			size = 3 << 20
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("file-%02d", i)), contentOf(i, generation, size), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func contentOf(i, generation, size int) []byte {
	return bytes.Repeat([]byte(fmt.Sprintf("%06d/%06d;", i, generation)), size/14)
}

// TestPutKilled kills a peer at random moments of a put. After a restart every file is as it was before or as it was
// put, whole; nothing is damaged or missing, and once what has no name is collected no orphan is left.
func TestPutKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts and kills a peer many times")
	}
	k := &killable{t: t, home: filepath.Join(t.TempDir(), "home")}
	src := filepath.Join(t.TempDir(), "src")
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	current := make([]int, killedFiles) // the generation that each path had when it was last looked at
	for generation := 1; generation <= killedPuts; generation++ {
		writeTreeOf(t, src, generation)
		c := k.up()
		began := make(chan struct{})
		ended := make(chan error, 1)
		go func() {
			close(began)
			_, err := c.FilePut(context.Background(), client.FilePutRequest{Source: src, Path: "/data"}, nil)
			ended <- err
		}()
		<-began
		delay := time.NewTimer(time.Duration(random.IntN(250)) * time.Millisecond)
		var whole bool
		select {
		case err := <-ended:
			whole = err == nil
		case <-delay.C:
		}
		k.kill()
		delay.Stop()
		c.Close()

		c = k.up()
		for i := range current {
			got, ok := generationOf(t, c, i)
			switch {
			case ok && got == generation, ok && got == current[i], !ok && current[i] == 0:
			default:
				t.Fatalf("after kill %d file %d is of generation %d (there: %v), was %d\n%s", generation, i, got, ok, current[i], k.log.String())
			}
			if whole && got != generation {
				t.Fatalf("put %d was acknowledged, and file %d is of generation %d", generation, i, got)
			}
			current[i] = got
		}
		checkKept(t, c)
		c.Close()
		k.kill()
	}
	if current[0] == 0 && current[killedFiles-1] == 0 {
		t.Log("no put got so far as to write a name")
	}
}

// generationOf reads a file and finds out which one it is, whole.
func generationOf(t *testing.T, c *client.Client, i int) (generation int, ok bool) {
	t.Helper()
	var out bytes.Buffer
	err := c.Cat(context.Background(), client.CatRequest{Link: fmt.Sprintf("/data/file-%02d", i)}, &out, nil)
	if client.KindOf(err) == client.KindNotFound {
		return 0, false
	}
	if err != nil {
		t.Fatal(err)
	}
	var number int
	if _, err := fmt.Sscanf(out.String(), "%06d/%06d;", &number, &generation); err != nil || number != i {
		t.Fatalf("file %d begins with %.20q", i, out.String())
	}
	size := 2000
	if i < 2 {
		size = 3 << 20
	}
	if !bytes.Equal(out.Bytes(), contentOf(i, generation, size)) {
		t.Fatalf("file %d is not whole", i)
	}
	return generation, true
}

// checkKept collects what has no name, and has everything read again: nothing is damaged, and the store holds the pieces
// that names want and no other.
func checkKept(t *testing.T, c *client.Client) {
	t.Helper()
	if _, err := c.FileCollect(context.Background(), true); err != nil {
		t.Fatal(err)
	}
	r, err := c.FileScrub(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	space, err := c.FileSpace(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	wanted := 0
	for _, class := range space.Classes {
		wanted += class.Pieces
	}
	if r.Damaged > 0 || r.Missing > 0 || r.Pieces != wanted {
		text, _ := json.Marshal(r)
		t.Fatalf("scrub found %s; the names want %d pieces", text, wanted)
	}
}
