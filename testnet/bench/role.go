package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

// A role is one side of a floor. It runs in a process of its own, this program started again, so that its processor
// time and memory are its own. It writes lines of JSON to stdout (notice) and ends when its stdin does, so that none
// outlives the bench however that ends.
type role func(roleArgs, chan<- notice) error

// roleArgs are what any role may need; each uses some.
type roleArgs struct {
	Path   string `json:",omitempty"` // what to read
	Out    string `json:",omitempty"` // where to write
	Listen string `json:",omitempty"` // address to listen on, without a port; start sets it
	Addr   string `json:",omitempty"` // address to dial, as the other side's Ready gave it
	QUIC   bool   `json:",omitempty"` // libp2p: QUIC instead of TCP and TLS

	Home    string `json:",omitempty"` // of a shoal peer
	Profile string `json:",omitempty"` // where a shoal peer writes a profile of its processor time

	finish <-chan struct{} // closed when a role that waits is to give its result
}

// notice is one line from a role: first its readiness if somebody must dial it, then its result.
type notice struct {
	Ready  string  `json:",omitempty"`
	Result *result `json:",omitempty"`
	Error  string  `json:",omitempty"`
}

// result is what one side did between the first byte and the last, measured by itself.
type result struct {
	Bytes   int64
	Files   int
	Seconds float64
	CPU     float64 // seconds of user and system time
	RSS     int64   // peak resident bytes of the process; 0 where the system does not say
	Sum     string  `json:",omitempty"` // SHA-256 of what was read or written, in hexadecimal
}

var roles = map[string]role{
	"hash-file":    hashFile,
	"hash-tree":    hashTree,
	"tcp-receive":  tcpReceive,
	"tcp-send":     tcpSend,
	"p2p-receive":  p2pReceive,
	"p2p-send":     p2pSend,
	"pack-receive": packReceive,
	"pack-send":    packSend,
	"peer-import":  peerImport,
	"peer-seed":    peerSeed,
	"peer-get":     peerGet,
}

// runRole is the role command: a role's name and its arguments as JSON.
func runRole(args []string) error {
	if len(args) != 2 || roles[args[0]] == nil {
		return errors.New("role: this command is for the bench itself")
	}
	var ra roleArgs
	if err := json.Unmarshal([]byte(args[1]), &ra); err != nil {
		return fmt.Errorf("role: %w", err)
	}
	finish := make(chan struct{})
	ra.finish = finish
	go func() {
		in := bufio.NewReader(os.Stdin)
		if _, err := in.ReadByte(); err == nil {
			close(finish)
			io.Copy(io.Discard, in)
		}
		os.Exit(1)
	}()
	notices := make(chan notice)
	go func() {
		defer close(notices)
		if err := roles[args[0]](ra, notices); err != nil {
			notices <- notice{Error: err.Error()}
		}
	}()
	enc := json.NewEncoder(os.Stdout)
	for n := range notices {
		if err := enc.Encode(n); err != nil {
			return err
		}
	}
	return nil
}

// side is a role running in a process.
type side struct {
	name    string
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	notices *json.Decoder
	release func() bool
}

// place is where a process runs: on this machine or on a host of the emulated network.
type place struct {
	command func(name string, args ...string) *exec.Cmd
	addr    string // the one address to listen on
}

var here = place{exec.Command, "127.0.0.1"}

// start runs a role until it ends, ctx is done, or close is called.
func start(ctx context.Context, at place, name string, args roleArgs) (*side, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	args.Listen = at.addr
	text, err := json.Marshal(args)
	if err != nil {
		return nil, err
	}
	s := &side{name: name, cmd: at.command(self, roleCommand, name, string(text))}
	s.cmd.Stderr = os.Stderr
	if s.stdin, err = s.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	s.notices = json.NewDecoder(bufio.NewReader(out))
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	s.release = context.AfterFunc(ctx, func() { s.cmd.Process.Kill() })
	return s, nil
}

func (s *side) next() (notice, error) {
	var n notice
	if err := s.notices.Decode(&n); err != nil {
		return n, fmt.Errorf("%s: ended without a result: %w", s.name, err)
	}
	if n.Error != "" {
		return n, fmt.Errorf("%s: %s", s.name, n.Error)
	}
	return n, nil
}

func (s *side) ready() (string, error) {
	n, err := s.next()
	return n.Ready, err
}

func (s *side) result() (result, error) {
	n, err := s.next()
	if err == nil && n.Result == nil {
		err = fmt.Errorf("%s: no result", s.name)
	}
	if err != nil {
		return result{}, err
	}
	return *n.Result, nil
}

// finish asks a role that waits for its result.
func (s *side) finish() (result, error) {
	if _, err := s.stdin.Write([]byte{'\n'}); err != nil {
		return result{}, fmt.Errorf("%s: %w", s.name, err)
	}
	return s.result()
}

// close ends the process if it still runs, and waits for it.
func (s *side) close() {
	s.release()
	s.stdin.Close()
	s.cmd.Process.Kill()
	s.cmd.Wait()
}

// alone runs a role that needs no other side.
func alone(ctx context.Context, name string, args roleArgs) (result, error) {
	s, err := start(ctx, here, name, args)
	if err != nil {
		return result{}, err
	}
	defer s.close()
	return s.result()
}

// pair runs a receiving role and the sending role that dials it, and returns both results.
func pair(ctx context.Context, name string, receiver, sender place, recv, send roleArgs) (got, sent result, err error) {
	r, err := start(ctx, receiver, name+"-receive", recv)
	if err != nil {
		return got, sent, err
	}
	defer r.close()
	if send.Addr, err = r.ready(); err != nil {
		return got, sent, err
	}
	s, err := start(ctx, sender, name+"-send", send)
	if err != nil {
		return got, sent, err
	}
	defer s.close()
	// The sender's result comes first or it failed, and then the receiver would wait for it in vain.
	if sent, err = s.result(); err != nil {
		return got, sent, err
	}
	got, err = r.result()
	return got, sent, err
}

// meter measures one side's work.
type meter struct {
	began time.Time
	cpu   float64
}

func startMeter() meter { return meter{time.Now(), ownCPU()} }

func (m meter) stop(r result) notice {
	r.Seconds = time.Since(m.began).Seconds()
	r.CPU = ownCPU() - m.cpu
	r.RSS = ownRSS()
	return notice{Result: &r}
}
