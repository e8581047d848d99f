package pool

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/shoal-os/shoal/dht/gossip"
	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/dht/pool/pooltest"
	"github.com/shoal-os/shoal/dht/roster"
)

// TestRefusals runs every kind of refused peer against every protocol of the pool's table.
func TestRefusals(t *testing.T) {
	a := newBox(t, "anna")
	names := pooltest.NewNames()
	a.pool.UseRecords(names)
	for _, id := range []protocol.ID{gossip.Protocol, RenewProtocol, echoProtocol} {
		if !slices.Contains(a.pool.Protocols(), id) {
			t.Errorf("%s is not in the table", id)
		}
	}
	pooltest.Refusals(t, pooltest.Victim{
		Pool: a.pool, At: peer.AddrInfo{ID: a.self.ID, Addrs: a.host.Addrs()}, Admin: a.self, Tell: names.Put,
	})
}

func TestAProtocolAroundTheGateIsDetected(t *testing.T) {
	a := newBox(t, "anna")
	if ids := a.pool.Ungated(); len(ids) != 0 {
		t.Fatalf("at the start: %v", ids)
	}
	a.host.SetStreamHandler("/shoal/sneaky/1", func(s network.Stream) { _ = s.Close() })
	a.host.SetStreamHandler("/other/1", func(s network.Stream) { _ = s.Close() })
	if ids := a.pool.Ungated(); !slices.Equal(ids, []protocol.ID{"/shoal/sneaky/1"}) {
		t.Errorf("%v", ids)
	}
	for _, id := range []protocol.ID{echoProtocol, JoinProtocol, "/other/2"} {
		if !panics(func() { a.pool.Handle(id, func(network.Stream) {}) }) {
			t.Errorf("%s was registered", id)
		}
	}
}

func panics(f func()) (did bool) {
	defer func() { did = recover() != nil }()
	f()
	return false
}

// handlerSetters are the files that may register a stream handler without the gate, and why.
var handlerSetters = map[string]string{
	"dht/pool/gate.go":          "the gate itself",
	"dht/pool/pool.go":          "/shoal/join/1 and /shoal/pool/1, where a peer becomes or shows itself a member",
	"storage/exchange/swarm.go": "/shoal/chunk/1, which serves what was shared publicly to anybody",
}

// TestOnlyTheGateRegistersHandlers holds the repository to it: whoever else calls SetStreamHandler serves strangers.
// Programs that are no peers of a pool (testnet, tests) are free.
func TestOnlyTheGateRegistersHandlers(t *testing.T) {
	found := make(map[string]bool)
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		rel = filepath.ToSlash(rel)
		if d.IsDir() && (rel == "testnet" || rel == ".git" || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(rel, ".go") || strings.HasSuffix(rel, "_test.go") {
			return nil
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if setsHandler(t, rel, src) {
			found[rel] = true
			if handlerSetters[rel] == "" {
				t.Errorf("%s registers a stream handler itself: pool protocols go through pool.Handle, and one for strangers is to be named here with its reason", rel)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for rel := range handlerSetters {
		if _, err := os.Stat(filepath.Join(root, filepath.FromSlash(rel))); err == nil && !found[rel] {
			t.Errorf("%s does not register a handler any more: take it off the list", rel)
		}
	}
}

// setsHandler reports whether a file calls SetStreamHandler or SetStreamHandlerMatch on anything but the gate of gossip.
func setsHandler(t *testing.T, name string, src []byte) (found bool) {
	file, err := parser.ParseFile(token.NewFileSet(), name, src, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		call, ok := n.(*ast.SelectorExpr)
		found = found || ok && strings.HasPrefix(call.Sel.Name, "SetStreamHandler")
		return true
	})
	return found
}

func TestTheHandlerCheckCanFail(t *testing.T) {
	for src, want := range map[string]bool{
		"package x\nfunc f(h host) { h.SetStreamHandler(\"/shoal/x/1\", nil) }":            true,
		"package x\nfunc f(h host) { g := h.inner.SetStreamHandlerMatch; g() }":            true,
		"package x\nfunc f(p pool) { p.Handle(\"/shoal/x/1\", nil) }\n":                    false,
		"package x\nfunc (m *mesh) SetStreamHandler(id string) { m.gate.Handle(id, nil) }": false,
	} {
		if got := setsHandler(t, "x.go", []byte(src)); got != want {
			t.Errorf("%v for %s", got, src)
		}
	}
}

func TestRolesAtTheGate(t *testing.T) {
	a, b := newBox(t, "anna"), newBox(t, "ben")
	b.join(a, InviteOptions{Role: ident.RoleTerminal})
	const lend = "/shoal/test-lend/1"
	for _, one := range []*box{a, b} {
		one.pool.HandleFor(lend, ident.RoleMember, func(s network.Stream, m roster.Member) {
			if m.ID != s.Conn().RemotePeer() {
				t.Error("the handler is told of another")
			}
			_ = s.Close()
		})
	}
	if _, err := b.pool.NewStream(context10(t), a.self.ID, lend); ReasonOf(err) != roster.NotRole {
		t.Errorf("a terminal lends: %v", err)
	}
	if s, err := a.pool.NewStream(context10(t), b.self.ID, lend); err != nil {
		t.Error(err)
	} else {
		_ = s.Reset()
	}
	if err := b.echo(a); err != nil {
		t.Error(err)
	}
	if m, _ := a.pool.Member(b.self.ID); m.Role != ident.RoleTerminal {
		t.Error(m.Role)
	}
	if _, err := b.pool.Invite(context10(t), InviteOptions{}); ReasonOf(err) != roster.NotAdmin {
		t.Errorf("a terminal invites: %v", err)
	}
	if err := b.pool.Evict(context10(t), a.self.ID); ReasonOf(err) != roster.NotAdmin {
		t.Errorf("a terminal evicts: %v", err)
	}
	if err := b.pool.Appoint(context10(t), b.self.ID); ReasonOf(err) != roster.NotAdmin {
		t.Errorf("a terminal appoints itself: %v", err)
	}
}
