package tidy

import (
	"fmt"
	"path"
	"strings"
)

// order lists the packages from the ground up: a package may import only those of lower floors and those
// before it on its own. A folder that is not listed counts as its nearest listed parent, so that a package may
// split off a sub-package (its generated schema, say) without asking here.
var order = [][]string{
	{"dht/golden", "dht/agenda", "dht/canon", "dht/ident", "dht/wire", "dht/roster", "dht/host", "dht/gossip", "dht/pool", "dht"},
	{"storage/chunk", "storage/placement", "storage/folder", "storage/block", "storage/exchange", "storage",
		"storage/directory", "storage/quorum", "storage/tree", "storage/repair", "storage/sql", "storage/mount"},
	{"tasks/job", "tasks/market", "tasks/exec", "tasks"},
	{"node/api/client", "node/api", "node/web", "node"},
	{"testnet/netem", "testnet/script", "testnet/report", "testnet/evil", "testnet", "testnet/sim", "testnet/bench", "testnet/tidy", "examples"},
	{"cli", "cli/shoal"},
}

// owners says who may import a third-party module: a listed package with whatever counts as it, "folder/..." for a
// folder and all below it, "test" for any test file, "*" for everybody. Modules are import path prefixes; the
// longest that matches decides.
var owners = []struct {
	module string
	who    []string
}{
	{"github.com/libp2p/go-libp2p/core", []string{"*"}},
	{"github.com/multiformats/go-multiaddr", []string{"*"}},
	{"google.golang.org/protobuf", []string{"*"}}, // every protocol has a schema
	{"golang.org/x/sys", []string{"*"}},           // system calls that the standard library lacks
	{"golang.org/x/sync", []string{"*"}},

	{"github.com/libp2p/go-libp2p", []string{"dht/host", "testnet/...", "test"}},
	{"github.com/libp2p/go-libp2p-kad-dht", []string{"dht", "testnet/..."}},
	{"github.com/libp2p/go-libp2p-kbucket", []string{"dht"}},
	{"github.com/libp2p/go-libp2p-record", []string{"dht"}},
	{"github.com/ipfs/go-datastore", []string{"dht"}},
	{"github.com/libp2p/go-libp2p-pubsub", []string{"dht/gossip", "testnet/..."}},
	{"github.com/ipfs/go-cid", []string{"storage/chunk", "dht"}},
	{"github.com/multiformats/go-multihash", []string{"storage/chunk", "dht"}},
	{"github.com/multiformats/go-multibase", []string{"storage/chunk"}},
	{"github.com/ipfs/boxo", []string{"storage/chunk"}},
	{"github.com/spaolacci/murmur3", []string{"storage/chunk"}},

	{"github.com/cockroachdb/pebble/v2", []string{"storage/..."}},
	{"go.etcd.io/raft/v3", []string{"storage/quorum"}},
	{"modernc.org/sqlite", []string{"storage/sql"}},
	{"github.com/klauspost/reedsolomon", []string{"storage/..."}},
	{"golang.org/x/time/rate", []string{"storage/exchange"}},
	{"github.com/gofrs/flock", []string{"storage/block", "node"}},
	{"golang.org/x/text/unicode/norm", []string{"storage/tree/..."}},
	{"golang.org/x/net/webdav", []string{"storage/mount"}},
	{"github.com/hanwen/go-fuse/v2", []string{"storage/mount", "testnet"}}, // the testnet, for disks that are slow

	{"github.com/tetratelabs/wazero", []string{"tasks/exec", "testnet/bench"}}, // the bench, as the floor of what a module can take

	{"github.com/godbus/dbus/v5", []string{"node"}}, // logind tells of the machine's sleep by D-Bus alone

	{"github.com/danielgtaylor/huma/v2", []string{"node/api"}},
	{"golang.org/x/net/netutil", []string{"node/api", "node"}},

	{"github.com/spf13/cobra", []string{"cli/..."}},
	{"github.com/spf13/pflag", []string{"cli/..."}},
	{"github.com/vbauerster/mpb/v8", []string{"cli/..."}},
	{"github.com/mattn/go-isatty", []string{"cli/..."}},
	{"golang.org/x/term", []string{"cli/..."}},
	{"rsc.io/qr", []string{"cli/..."}},
	{"charm.land/bubbletea/v2", []string{"cli/..."}},
	{"github.com/kardianos/service", []string{"cli/..."}},

	{"github.com/rogpeppe/go-internal", []string{"test"}},
	{"github.com/anishathalye/porcupine", []string{"test", "testnet/..."}},
	{"pgregory.net/rapid", []string{"test", "testnet/..."}},
	{"github.com/marcopolo/simnet", []string{"test", "testnet/..."}},
}

// place is where a folder stands in order.
type place struct {
	name         string // the listed package it counts as
	floor, index int
}

// placeOf returns the place of a folder by its nearest listed parent; ok is false if there is none.
func placeOf(dir string) (p place, ok bool) {
	for ; dir != "." && dir != "/"; dir = path.Dir(dir) {
		for f, floor := range order {
			for i, name := range floor {
				if name == dir {
					return place{name, f, i}, true
				}
			}
		}
	}
	return place{}, false
}

func layers(t *Tree) (out []Finding) {
	t.goFiles(func(f *File) {
		dir := path.Dir(f.Path)
		from, ok := placeOf(dir)
		if !ok {
			out = append(out, Finding{f.Path, 0, "the folder " + dir + " is on no floor"})
			return
		}
		f.imports(func(imp string, line int) {
			if imp != Module && !strings.HasPrefix(imp, Module+"/") {
				return
			}
			dir := strings.TrimPrefix(strings.TrimPrefix(imp, Module), "/")
			to, ok := placeOf(dir)
			switch {
			case !ok:
				out = append(out, Finding{f.Path, line, imp + " is on no floor"})
			case to.floor > from.floor:
				out = append(out, Finding{f.Path, line, fmt.Sprintf("%s imports %s, a floor above it", from.name, dir)})
			case to.floor == from.floor && to.index > from.index:
				out = append(out, Finding{f.Path, line, fmt.Sprintf("%s imports %s, which comes after it on their floor", from.name, dir)})
			}
		})
	})
	return sortFindings(out)
}

func modules(t *Tree) (out []Finding) {
	t.goFiles(func(f *File) {
		f.imports(func(imp string, line int) {
			if !thirdParty(imp) {
				return
			}
			module, who := ownersOf(imp)
			switch {
			case module == "":
				out = append(out, Finding{f.Path, line, imp + " is not among the modules that have an owner"})
			case !mayImport(f, who):
				out = append(out, Finding{f.Path, line, fmt.Sprintf("%s is imported here; its owners are %s", imp, strings.Join(who, ", "))})
			}
		})
	})
	return sortFindings(out)
}

// thirdParty: an import is neither ours nor the standard library's if its first element has a dot.
func thirdParty(imp string) bool {
	if imp == Module || strings.HasPrefix(imp, Module+"/") {
		return false
	}
	first, _, _ := strings.Cut(imp, "/")
	return strings.Contains(first, ".")
}

func ownersOf(imp string) (module string, who []string) {
	for _, o := range owners {
		if (imp == o.module || strings.HasPrefix(imp, o.module+"/")) && len(o.module) > len(module) {
			module, who = o.module, o.who
		}
	}
	return module, who
}

func mayImport(f *File, who []string) bool {
	dir := path.Dir(f.Path)
	for _, w := range who {
		if w == "*" || w == "test" && f.Test {
			return true
		}
		if folder, ok := strings.CutSuffix(w, "/..."); ok {
			if dir == folder || strings.HasPrefix(dir, folder+"/") {
				return true
			}
		} else if p, ok := placeOf(dir); ok && p.name == w {
			return true
		}
	}
	return false
}
