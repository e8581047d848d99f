package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// linkWait bounds the wait for a share's link: far beyond what the largest data set needs to be hashed.
const linkWait = 10 * time.Minute

// peers starts real shoal processes, each in a new home, on loopback only.
type peers struct {
	binary  string
	dir     string
	homes   int
	built   bool
	profile string // folder; empty for none
	sealAll bool   // they encrypt on this machine, too, as they do on a LAN
}

func newPeers(dir, profile string) *peers {
	p := &peers{binary: filepath.Join(dir, "shoal"), dir: dir, profile: profile}
	if runtime.GOOS == "windows" {
		p.binary += ".exe"
	}
	return p
}

// build makes the program, once, when it is first needed.
func (p *peers) build(ctx context.Context) error {
	if p.built {
		return nil
	}
	progress("building shoal")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", p.binary, "github.com/shoal-os/shoal/cli/shoal")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build shoal: %w\n%s", err, out)
	}
	p.built = true
	return nil
}

// The transports that a peer listens on.
const (
	bothTransports = "tcp quic"
	onlyTCP        = "tcp"
	onlyQUIC       = "quic"
)

func listenAddrs(addr, transports string) []string {
	var out []string
	if strings.Contains(transports, onlyTCP) {
		out = append(out, "/ip4/"+addr+"/tcp/0")
	}
	if strings.Contains(transports, onlyQUIC) {
		out = append(out, "/ip4/"+addr+"/udp/0/quic-v1")
	}
	return out
}

// command is a shoal command in a home of its own, with nothing taken from the caller's settings. The second result is
// the home.
func (p *peers) command(ctx context.Context, at place, transports string, args ...string) (*exec.Cmd, string, error) {
	if err := p.build(ctx); err != nil {
		return nil, "", err
	}
	home, err := p.home()
	if err != nil {
		return nil, "", err
	}
	cmd := at.command(p.binary, args...)
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "SHOAL_") {
			cmd.Env = append(cmd.Env, e)
		}
	}
	cmd.Env = append(cmd.Env, "SHOAL_SEAL_ALL="+strconv.FormatBool(p.sealAll), "SHOAL_HOME="+home, "SHOAL_LAN=false", "SHOAL_UPNP=false",
		"SHOAL_LISTEN="+strings.Join(listenAddrs(at.addr, transports), ","))
	return cmd, home, nil
}

// home makes a new home.
func (p *peers) home() (string, error) {
	p.homes++
	home := filepath.Join(p.dir, fmt.Sprintf("home-%d", p.homes))
	return home, os.Mkdir(home, 0o700)
}

// seeder is a running `shoal share`.
type seeder struct {
	home    string
	link    string
	seconds float64 // from the command's start to its link
	cmd     *exec.Cmd
	release func() bool
}

func (p *peers) share(ctx context.Context, at place, transports, path string) (*seeder, error) {
	cmd, home, err := p.command(ctx, at, transports, "share", path)
	if err != nil {
		return nil, err
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &seeder{home: home, cmd: cmd, release: context.AfterFunc(ctx, func() { cmd.Process.Kill() })}
	late := time.AfterFunc(linkWait, func() { cmd.Process.Kill() })
	line, err := bufio.NewReader(out).ReadString('\n')
	s.seconds = time.Since(began).Seconds()
	late.Stop()
	if s.link = strings.TrimSpace(line); err != nil || s.link == "" {
		s.close()
		return nil, fmt.Errorf("shoal share printed no link: %w\n%s", err, lastLines(stderr.String()))
	}
	go io.Copy(io.Discard, out)
	return s, nil
}

func (s *seeder) pid() int { return s.cmd.Process.Pid }

func (s *seeder) close() {
	s.release()
	s.cmd.Process.Signal(os.Interrupt)
	late := time.AfterFunc(5*time.Second, func() { s.cmd.Process.Kill() })
	s.cmd.Wait()
	late.Stop()
}

// fetched is a finished `shoal get`.
type fetched struct {
	elapsed float64 // seconds, as get itself reports
	seconds float64 // of the whole command
	usage   result
	banned  []string // ids of the peers that were found lying
}

func (p *peers) get(ctx context.Context, at place, transports, link, out string) (fetched, error) {
	run, err := p.prepareGet(ctx, at, transports, link, out)
	if err != nil {
		return fetched{}, err
	}
	return run()
}

// prepareGet makes a get that run starts and waits for; the runs of several may overlap.
func (p *peers) prepareGet(ctx context.Context, at place, transports, link, out string) (run func() (fetched, error), err error) {
	cmd, _, err := p.command(ctx, at, transports, "get", link, "-o", out, "--json")
	if err != nil {
		return nil, err
	}
	return func() (f fetched, err error) {
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		began := time.Now()
		if err := cmd.Start(); err != nil {
			return f, err
		}
		release := context.AfterFunc(ctx, func() { cmd.Process.Kill() })
		defer release()
		err = cmd.Wait()
		if f.seconds = time.Since(began).Seconds(); err != nil {
			return f, fmt.Errorf("shoal get: %w\n%s", err, lastLines(stderr.String()))
		}
		state := cmd.ProcessState
		f.usage = result{CPU: (state.UserTime() + state.SystemTime()).Seconds(), RSS: waitedRSS(state)}
		f.elapsed, f.banned, err = parseGot(stdout.Bytes())
		return f, err
	}, nil
}

// linesShown is how much of a failed command's last words is repeated.
const linesShown = 4

func lastLines(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-linesShown):], "\n")
}

// parseGot reads what get --json printed: the result is the last line, or the whole output.
func parseGot(out []byte) (elapsed float64, banned []string, err error) {
	var r struct {
		Elapsed float64 `json:"elapsed_s"`
		Banned  []struct {
			ID string `json:"id"`
		} `json:"banned"`
	}
	text := bytes.TrimSpace(out)
	if json.Unmarshal(text, &r) != nil {
		text = text[bytes.LastIndexByte(text, '\n')+1:]
		if err := json.Unmarshal(text, &r); err != nil {
			return 0, nil, fmt.Errorf("shoal get --json printed %q: %w", out, err)
		}
	}
	if r.Elapsed <= 0 {
		return 0, nil, errors.New("shoal get --json gave no elapsed_s")
	}
	for _, b := range r.Banned {
		banned = append(banned, b.ID)
	}
	return r.Elapsed, banned, nil
}

// importing measures an import in a peer inside this program, so that no process's start is in it.
func (p *peers) importing(ctx context.Context, path string) (result, error) {
	home, err := p.home()
	if err != nil {
		return result{}, err
	}
	return alone(ctx, "peer-import", roleArgs{Home: home, Path: path, Profile: p.profilePath("import", path)})
}

// profiled is a get between two peers inside this program, which write profiles.
func (p *peers) profiled(ctx context.Context, path, out string) (got, sent result, err error) {
	seedHome, err := p.home()
	if err != nil {
		return got, sent, err
	}
	getHome, err := p.home()
	if err != nil {
		return got, sent, err
	}
	seed, err := start(ctx, here, "peer-seed", roleArgs{Home: seedHome, Path: path, Profile: p.profilePath("seed", path)})
	if err != nil {
		return got, sent, err
	}
	defer seed.close()
	link, err := seed.ready()
	if err != nil {
		return got, sent, err
	}
	get, err := start(ctx, here, "peer-get", roleArgs{Home: getHome, Addr: link, Out: out, Profile: p.profilePath("get", path)})
	if err != nil {
		return got, sent, err
	}
	defer get.close()
	if got, err = get.result(); err != nil {
		return got, sent, err
	}
	sent, err = seed.finish()
	return got, sent, err
}

// profilePath names a profile by what is profiled and by the data; later runs overwrite earlier ones.
func (p *peers) profilePath(what, data string) string {
	if p.profile == "" {
		return ""
	}
	name, _, _ := strings.Cut(strings.TrimSuffix(filepath.Base(data), filepath.Ext(data)), "-")
	return filepath.Join(p.profile, what+"-"+name+".cpu.pprof")
}
