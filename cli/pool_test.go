package cli

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/shoal-os/shoal/node"
	"github.com/shoal-os/shoal/node/api/client"
)

// lockedBuffer is a buffer that is read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// homeWithPeer is a home on which a peer runs in this process.
func homeWithPeer(t *testing.T, name string) string {
	t.Helper()
	home := filepath.Join(t.TempDir(), name)
	n, err := node.Start(t.Context(), node.Config{Home: home, Name: name, Listen: []string{"/ip4/127.0.0.1/tcp/0"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return home
}

// typed runs a command with what a person types, and returns its exit code.
func typed(ctx context.Context, in io.Reader, out, stderr io.Writer, args ...string) int {
	a := &app{in: in, out: out, err: stderr, env: func(string) (string, bool) { return "", false }}
	return a.run(ctx, args)
}

// TestTwoPeopleCompareWords plays both sides: the inviter waits with its ticket and is asked about the joiner, whose screen
// shows the same words.
func TestTwoPeopleCompareWords(t *testing.T) {
	ada, bob := homeWithPeer(t, "ada"), homeWithPeer(t, "bob")
	fromAda, toAda := io.Pipe() // what ada's person types
	ticketOut, ticketIn := io.Pipe()
	adaSays, bobSays := &lockedBuffer{}, &lockedBuffer{}
	done := make(chan int, 1)
	go func() {
		code := typed(t.Context(), fromAda, ticketIn, adaSays, "--home", ada, "invite", "--wait")
		ticketIn.Close()
		done <- code
	}()
	ticket, err := bufio.NewReader(ticketOut).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	go func() { // the person answers once asked
		if eventually(func() bool { return strings.Contains(adaSays.String(), "Let it in?") }) {
			fmt.Fprintln(toAda, "y")
		}
	}()
	code := typed(t.Context(), strings.NewReader("y\n"), io.Discard, bobSays, "--home", bob, "join", strings.TrimSpace(ticket))
	if code != exitOK {
		t.Fatalf("join: %d\n%s", code, bobSays)
	}
	if code := <-done; code != exitOK {
		t.Fatalf("invite: %d\n%s", code, adaSays)
	}
	words := checkWords(bobSays.String())
	if words == "" || !strings.Contains(adaSays.String(), words) || !strings.Contains(adaSays.String(), "bob joined as a member") {
		t.Errorf("the joiner saw\n%s\nand the inviter\n%s", bobSays, adaSays)
	}
}

// checkWords are those on a screen: the one line that is indented.
func checkWords(screen string) string {
	for line := range strings.Lines(screen) {
		if strings.HasPrefix(line, "    ") {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

func TestTopModel(t *testing.T) {
	home := homeWithPeer(t, "ada\x1b[31m")
	c, err := client.Open(home)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	m := topModel{ctx: t.Context(), client: c}
	var next tea.Model = m
	next, _ = next.Update(tea.WindowSizeMsg{Width: 60, Height: 9})
	next, again := next.Update(m.Init()())
	if again == nil {
		t.Error("it does not look again")
	}
	text := next.View().Content
	if !strings.Contains(text, "1 of 1 member online") || !strings.Contains(text, "this peer") || strings.Contains(text, "\x1b[31m") {
		t.Errorf("the view is\n%s", text)
	}
	for i, line := range strings.Split(text, "\n") {
		if len([]rune(line)) > 60 || i >= 9 {
			t.Errorf("line %d does not fit: %q", i, line)
		}
	}
	if next, _ = next.Update(topLook{err: client.ErrNoPeer}); next.(topModel).fatal == nil {
		t.Error("it goes on without a peer")
	}
	if _, quit := next.Update(tea.KeyPressMsg{Code: 'q', Text: "q"}); quit == nil {
		t.Error("q does not end it")
	}
}

func TestTopRates(t *testing.T) {
	before := topData{taken: time.Unix(100, 0), Status: client.Status{PID: 1, Uploaded: 1000}}
	now := topData{taken: time.Unix(102, 0), Status: client.Status{PID: 1, Uploaded: 5000}, upload: -1}
	if got := now.after(before).upload; got != 2000 {
		t.Errorf("%v", got)
	}
	now.Status.PID = 2
	if got := now.after(before).upload; got != -1 {
		t.Errorf("the rate of another process is %v", got)
	}
}

func TestBytesFlag(t *testing.T) {
	for text, want := range map[string]bytesFlag{"0": 0, "-1": -1, "4096": 4096, "1KiB": 1 << 10, "2 GB": 2e9, "1.5GiB": 3 << 29, "3g": 3 << 30, "7B": 7} {
		var b bytesFlag
		if err := b.Set(text); err != nil || b != want {
			t.Errorf("%s is %d: %v", text, b, err)
		}
	}
	for _, text := range []string{"", "x", "GiB", "-2GiB", "1e300", "NaN", "1.2.3"} {
		if err := new(bytesFlag).Set(text); err == nil {
			t.Errorf("%q was taken for a size", text)
		}
	}
}
