package testnet

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/shoal-os/shoal/testnet/evil"
	"github.com/shoal-os/shoal/testnet/report"
	"github.com/shoal-os/shoal/testnet/script"
)

// EnemyCommand is the hidden command of the program that RunEnemy is behind.
const EnemyCommand = "testnet-enemy"

// lieEvery is how far apart the bytes are that a liar changes.
const lieEvery = 32 << 10

// enemy is a hostile program in a peer's place.
type enemy struct {
	cmd *exec.Cmd
	out bytes.Buffer
}

// evil turns a member against the others. A liar goes on as before, with other bytes on its disk; the others stop, and a hostile
// program takes their place and their key.
func (w *world) evil(ctx context.Context, a script.Action) (string, error) {
	if a.Arg == "liar" {
		changed := 0
		err := w.each(a.Peers, 1, func(p *peer) error {
			n, err := p.lie()
			changed += n
			return err
		})
		return fmt.Sprintf("%d files hold other bytes now", changed), err
	}
	return "", w.each(a.Peers, 1, func(p *peer) error { return w.turn(ctx, p, a.Arg) })
}

// turn puts a hostile program in a peer's place.
func (w *world) turn(ctx context.Context, p *peer, kind string) error {
	cfg := evil.Config{Home: p.home, Kind: kind}
	for _, other := range w.live() {
		c, err := other.api()
		if err != nil {
			return err
		}
		s, err := c.Status(ctx)
		if err != nil {
			return err
		}
		if other != p {
			cfg.Victims = append(cfg.Victims, s.Addrs...)
			continue
		}
		v, err := c.Pool(ctx)
		if err != nil {
			return err
		}
		cfg.Pool = v.ID
	}
	ip, _ := w.ground.addr(p.index)
	cfg.Listen = []string{"/ip4/" + ip + "/tcp/0", "/ip4/" + ip + "/udp/0/quic-v1"}
	// One address of each victim will do.
	seen := map[string]bool{}
	var victims []string
	for _, v := range cfg.Victims {
		id := v[strings.LastIndexByte(v, '/'):]
		if !seen[id] && strings.Contains(v, "/tcp/") {
			seen[id] = true
			victims = append(victims, v)
		}
	}
	cfg.Victims = victims
	if err := p.end("turned"); err != nil {
		return err
	}
	text, err := json.Marshal(cfg)
	if err != nil {
		return err
	}
	e := &enemy{cmd: p.command(EnemyCommand)}
	e.cmd.Stdin, e.cmd.Stdout, e.cmd.Stderr = bytes.NewReader(text), &e.out, &e.out
	if err := w.ground.start(p.index, e.cmd); err != nil {
		return fmt.Errorf("%s in the place of %s: %w", kind, p.name, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.enemy, p.left = e, true // from now on nothing is expected of it
	p.lives = append(p.lives, report.Life{From: w.now(), State: "evil"})
	return nil
}

// endEnemy ends the hostile program, and says how it was received.
func (w *world) endEnemy(p *peer) error {
	p.mu.Lock()
	e := p.enemy
	p.enemy = nil
	p.mu.Unlock()
	if e == nil {
		return nil
	}
	_ = stop(e.cmd.Process)
	late := time.AfterFunc(endWait, func() { _ = e.cmd.Process.Kill() })
	err := e.cmd.Wait()
	late.Stop()
	p.mu.Lock()
	p.endLife("stopped")
	p.mu.Unlock()
	var r evil.Report
	if err := json.Unmarshal(e.out.Bytes(), &r); err != nil {
		return fmt.Errorf("the enemy in the place of %s said %q", p.name, e.out.String())
	}
	text := fmt.Sprintf("%s was a %s: %d attacks, %d of them heard to the end, %d refused, %d without an answer, %d without a stream, %d taken", p.name, r.Kind, r.Attacks, r.Sent, r.Refused, r.Silent, r.NoStream, r.Believed)
	w.logLine("  %s", text)
	w.event(report.Event{From: w.now(), To: w.now(), Peers: []int{p.index}, Kind: "evil", Text: text}, false)
	if r.Last != "" {
		w.logLine("  the last met: %s", r.Last)
	}
	if r.Sent == 0 { // then nothing was tried out
		return errors.New(text)
	}
	return err
}

// lie changes the bytes of everything that a peer shares, has fetched, or keeps for the pool, and nothing else: sizes and
// times stay, so that it goes on offering them.
func (p *peer) lie() (files int, err error) {
	roots := []string{filepath.Join(p.w.cfg.Dir, p.name, "got"), p.home}
	p.w.mu.Lock()
	for _, d := range p.w.data {
		if d.link != "" && d.from == p.index {
			roots = append(roots, filepath.Join(p.w.cfg.Dir, "data", d.name))
		}
	}
	p.w.mu.Unlock()
	for _, root := range roots {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			if root == p.home && filepath.Ext(path) != ".pack" && filepath.Base(filepath.Dir(path)) != "large" {
				return nil
			}
			files++
			return spoil(path)
		})
		if err != nil {
			return files, err
		}
	}
	return files, nil
}

func spoil(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	var one [1]byte
	for at := min(info.Size()/2, lieEvery/2); at < info.Size(); at += lieEvery {
		if _, err := f.ReadAt(one[:], at); err != nil {
			return err
		}
		one[0] ^= 0xff
		if _, err := f.WriteAt(one[:], at); err != nil {
			return err
		}
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Chtimes(path, info.ModTime(), info.ModTime())
}
