package job

import (
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/tasks/job/pb"
)

// domain is what a spec is signed under.
const domain = "shoal job v1"

// Signed is a spec as it travels and is kept: its raw bytes are the block that the job's id names. It is immutable.
type Signed struct {
	ID   ID
	Spec Spec
	Raw  []byte // the caller must not change it
}

// Sign checks, encodes and signs a spec. The submitter follows from the key; Created is cut to milliseconds.
func Sign(key crypto.PrivKey, s Spec) (*Signed, error) {
	var err error
	if s.Submitter, err = peer.IDFromPrivateKey(key); err != nil {
		return nil, fmt.Errorf("job: sign: %w", err)
	}
	if err := s.Validate(); err != nil {
		return nil, err
	}
	body, err := encode(s.message())
	if err != nil {
		return nil, fmt.Errorf("job: sign: %w", err)
	}
	sig, err := ident.Sign(key, domain, body)
	if err != nil {
		return nil, fmt.Errorf("job: sign: %w", err)
	}
	raw, err := encode(&pb.Signed{Spec: body, Signature: sig})
	if err != nil {
		return nil, fmt.Errorf("job: sign: %w", err)
	}
	return Decode(raw)
}

// Decode reads a signed spec of at most SignedMax bytes, checks it and its signature. Whether its submitter is a member
// of the pool it names is the caller's to ask. It keeps raw.
func Decode(raw []byte) (*Signed, error) {
	j, sig, body, err := parse(raw)
	if err != nil {
		return nil, err
	}
	if err := ident.Verify(j.Spec.Submitter, domain, body, sig); err != nil {
		return nil, fmt.Errorf("job: %w", err)
	}
	return j, nil
}

// Trust is Decode without the signature, for bytes that this peer has verified before: the log of a job's group and the
// block store. A replica of the log must not depend on the cost of a signature, nor judge it by a newer rule.
func Trust(raw []byte) (*Signed, error) {
	j, _, _, err := parse(raw)
	return j, err
}

func parse(raw []byte) (j *Signed, sig, body []byte, err error) {
	if len(raw) > SignedMax {
		return nil, nil, nil, fmt.Errorf("job: a spec of %d bytes, the limit is %d", len(raw), SignedMax)
	}
	var m pb.Signed
	if err := proto.Unmarshal(raw, &m); err != nil {
		return nil, nil, nil, fmt.Errorf("job: decode: %w", err)
	}
	var p pb.Spec
	if err := proto.Unmarshal(m.Spec, &p); err != nil {
		return nil, nil, nil, fmt.Errorf("job: decode: %w", err)
	}
	spec, err := specOf(&p)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("job: decode: %w", err)
	}
	if err := spec.Validate(); err != nil {
		return nil, nil, nil, err
	}
	return &Signed{ID: sha256.Sum256(raw), Spec: spec, Raw: raw}, m.Signature, m.Spec, nil
}

func encode(m proto.Message) ([]byte, error) {
	return proto.MarshalOptions{Deterministic: true}.Marshal(m)
}

func (s *Spec) message() *pb.Spec {
	m := &pb.Spec{
		Pool: s.Pool[:], Submitter: []byte(s.Submitter), CreatedMs: s.Created.UnixMilli(), Nonce: s.Nonce, Name: s.Name,
		Command: s.Command.message(), Inputs: inputsMessage(s.Inputs), Split: s.Split.message(),
		Failures: uint32(s.Failures), Exclusive: s.Exclusive, AnyExit: s.AnyExit, Needs: s.Needs,
		Priority: int32(s.Priority), RetentionS: int64(s.Retention / time.Second),
		Resources: &pb.Resources{
			Cores: uint32(s.Resources.Cores), Memory: s.Resources.Memory, WallMs: s.Resources.Wall.Milliseconds(),
			Output: s.Resources.Output,
		},
	}
	if len(s.Stdin.Text) > 0 || s.Stdin.File.Defined() {
		m.Stdin = &pb.Source{Text: s.Stdin.Text, File: s.Stdin.File.message()}
	}
	if s.Reduce != nil {
		m.Reduce = s.Reduce.message()
	}
	return m
}

func (c *Command) message() *pb.Command {
	return &pb.Command{Kind: uint32(c.Kind), Module: c.Module.message(), Path: c.Path, Args: c.Args, Env: c.Env}
}

func (p *Split) message() *pb.Split {
	m := &pb.Split{Kind: uint32(p.Kind), Count: p.Count, File: p.File.message(), Slice: p.Slice, Lines: p.Lines}
	for i := range p.Items {
		m.Items = append(m.Items, p.Items[i].message())
	}
	return m
}

func (it *Item) message() *pb.Item {
	return &pb.Item{Text: it.Text, Inputs: inputsMessage(it.Inputs)}
}

func (f *File) message() *pb.File {
	if !f.Defined() {
		return nil
	}
	m := &pb.File{Root: f.Root.Bytes(), Size: f.Size}
	for _, p := range f.Pieces {
		m.Pieces = append(m.Pieces, &pb.Piece{Id: p.ID.Bytes(), Size: p.Size})
	}
	return m
}

func inputsMessage(in []Input) (out []*pb.Input) {
	for i := range in {
		out = append(out, &pb.Input{Name: in[i].Name, File: in[i].File.message()})
	}
	return out
}

// specOf reads the schema into a plain value. Values that do not fit are an error here; bounds are Validate's.
func specOf(m *pb.Spec) (s Spec, err error) {
	if len(m.Pool) != len(s.Pool) {
		return s, fmt.Errorf("a pool id of %d bytes", len(m.Pool))
	}
	copy(s.Pool[:], m.Pool)
	if s.Submitter, err = peer.IDFromBytes(m.Submitter); err != nil {
		return s, fmt.Errorf("submitter: %w", err)
	}
	if m.RetentionS < 0 || m.RetentionS > int64(RetainMax/time.Second) || m.CreatedMs < 0 || m.CreatedMs > createdMax {
		return s, fmt.Errorf("a time that is out of bounds")
	}
	s.Created, s.Nonce, s.Name = time.UnixMilli(m.CreatedMs).UTC(), m.Nonce, m.Name
	s.Failures, s.Exclusive, s.AnyExit, s.Needs = int(m.Failures), m.Exclusive, m.AnyExit, m.Needs
	s.Priority, s.Retention = int(m.Priority), time.Duration(m.RetentionS)*time.Second
	if s.Command, err = commandOf(m.Command); err != nil {
		return s, err
	}
	if m.Reduce != nil {
		c, err := commandOf(m.Reduce)
		if err != nil {
			return s, err
		}
		s.Reduce = &c
	}
	if s.Inputs, err = inputsOf(m.Inputs); err != nil {
		return s, err
	}
	if s.Stdin.File, err = fileOf(m.Stdin.GetFile()); err != nil {
		return s, err
	}
	s.Stdin.Text = m.Stdin.GetText()
	if s.Resources, err = resourcesOf(m.Resources); err != nil {
		return s, err
	}
	s.Split, err = splitOf(m.Split)
	return s, err
}

// createdMax is the last moment that a spec may name, in the year 2243, so that nanoseconds since 1970 fit 63 bits.
const createdMax = 1 << 43

func commandOf(m *pb.Command) (c Command, err error) {
	if m.GetKind() > uint32(Proc) {
		return c, fmt.Errorf("kind %d of program", m.GetKind())
	}
	c = Command{Kind: Kind(m.GetKind()), Path: m.GetPath(), Args: m.GetArgs(), Env: m.GetEnv()}
	c.Module, err = fileOf(m.GetModule())
	return c, err
}

func resourcesOf(m *pb.Resources) (r Resources, err error) {
	if ms := m.GetWallMs(); ms < 0 || ms > WallMax.Milliseconds() {
		return r, fmt.Errorf("%d ms of running time", ms)
	}
	return Resources{
		Cores: int(m.GetCores()), Memory: m.GetMemory(), Wall: time.Duration(m.GetWallMs()) * time.Millisecond,
		Output: m.GetOutput(),
	}, nil
}

func splitOf(m *pb.Split) (p Split, err error) {
	if m.GetKind() > uint32(Slices) {
		return p, fmt.Errorf("kind %d of split", m.GetKind())
	}
	p = Split{Kind: SplitKind(m.GetKind()), Count: m.GetCount(), Slice: m.GetSlice(), Lines: m.GetLines()}
	if p.File, err = fileOf(m.GetFile()); err != nil {
		return p, err
	}
	for _, i := range m.GetItems() {
		it, err := itemOf(i)
		if err != nil {
			return p, err
		}
		p.Items = append(p.Items, it)
	}
	return p, nil
}

func itemOf(m *pb.Item) (it Item, err error) {
	it.Text = m.GetText()
	it.Inputs, err = inputsOf(m.GetInputs())
	return it, err
}

func inputsOf(list []*pb.Input) (out []Input, err error) {
	for _, m := range list {
		f, err := fileOf(m.File)
		if err != nil {
			return nil, err
		}
		out = append(out, Input{Name: m.Name, File: f})
	}
	return out, nil
}

func fileOf(m *pb.File) (f File, err error) {
	if m == nil {
		return f, nil
	}
	if f.Root, err = cidOf(m.Root); err != nil {
		return f, err
	}
	f.Size = m.Size
	for _, p := range m.Pieces {
		id, err := cidOf(p.Id)
		if err != nil {
			return f, err
		}
		f.Pieces = append(f.Pieces, Piece{id, p.Size})
	}
	return f, nil
}

func cidOf(b []byte) (chunk.CID, error) {
	c, n, err := chunk.CIDFromBytes(b)
	if err == nil && n != len(b) {
		err = fmt.Errorf("a CID of %d bytes", len(b))
	}
	return c, err
}
