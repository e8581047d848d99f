package job

import (
	"crypto/sha256"
	"encoding/binary"
)

// Key names what a job computes: two specs with the same key have the same program, arguments, environment, inputs and
// split, so the stored result of one answers the other. Who asks, when, at which priority and with which limits is no
// part of it. Whether a program's answer depends on anything else is for its author to know; hence "--fresh".
type Key [32]byte

// Key computes the canonical hash. It does not depend on the schema's encoding, which libraries may vary.
func (s *Spec) Key() Key {
	h := hasher{buf: []byte("shoal job key v1\x00")}
	h.command(&s.Command)
	h.inputs(s.Inputs)
	h.bytes(s.Stdin.Text)
	h.file(s.Stdin.File)
	p := &s.Split
	h.number(uint64(p.Kind), uint64(p.Count), uint64(p.Slice), flag(p.Lines), uint64(len(p.Items)))
	for i := range p.Items {
		h.bytes([]byte(p.Items[i].Text))
		h.inputs(p.Items[i].Inputs)
	}
	h.file(p.File)
	h.number(flag(s.AnyExit), flag(s.Reduce != nil))
	if s.Reduce != nil {
		h.command(s.Reduce)
	}
	return sha256.Sum256(h.buf)
}

// hasher lays values out so that no two different specs give the same bytes: every text has its length before it.
type hasher struct {
	buf []byte
}

func (h *hasher) number(ns ...uint64) {
	for _, n := range ns {
		h.buf = binary.AppendUvarint(h.buf, n)
	}
}

func (h *hasher) bytes(b []byte) {
	h.number(uint64(len(b)))
	h.buf = append(h.buf, b...)
}

func (h *hasher) texts(list []string) {
	h.number(uint64(len(list)))
	for _, t := range list {
		h.bytes([]byte(t))
	}
}

func (h *hasher) command(c *Command) {
	h.number(uint64(c.Kind))
	h.file(c.Module)
	h.bytes([]byte(c.Path))
	h.texts(c.Args)
	h.texts(c.Env)
}

// file needs no pieces: the root names the bytes.
func (h *hasher) file(f File) {
	h.bytes(f.Root.Bytes())
}

func (h *hasher) inputs(in []Input) {
	h.number(uint64(len(in)))
	for i := range in {
		h.bytes([]byte(in[i].Name))
		h.file(in[i].File)
	}
}

func flag(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}
