package job

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/shoal-os/shoal/dht/wire"
	"github.com/shoal-os/shoal/tasks/job/pb"
)

// Bounds of a result.
const (
	// InlineMax is how many bytes of output, all streams and files together, stand in the result itself and so in the
	// job's log. What is larger is made of blocks first, on two peers.
	InlineMax = 4 << 10
	// ResultMax bounds an encoded result, in bytes.
	ResultMax = 6 << 10
	// OutputsMax bounds the files that a result names. More are listed in a manifest, which is one.
	OutputsMax = 8
	// ReasonMax bounds the sentence that says why an attempt failed, in bytes.
	ReasonMax = 512
)

// Stream is what a task wrote to its standard output or error. At most one of Inline and File is set.
type Stream struct {
	Inline []byte
	File   File
	Cut    bool // the limit on output was reached, what follows is lost
}

// Output is one file that a task left in /out, or the manifest of many.
type Output struct {
	Name   string // "" for a manifest, which lists more files than OutputsMax
	Mode   uint32 // permission bits
	Inline []byte
	File   File
}

// Usage is what an attempt used.
type Usage struct {
	Wall, CPU     time.Duration // to the microsecond
	Memory        int64         // greatest resident size, bytes
	Read, Written int64         // bytes of input and output
	Fetched       int64         // bytes of inputs that came from other peers
}

// Result is what an attempt gives back, good or bad.
type Result struct {
	Exit           int
	Reason         string // why it failed; "" for a good one
	Stdout, Stderr Stream
	Outputs        []Output
	Usage          Usage
}

// Inline returns how many bytes of output stand in the result itself.
func (r *Result) Inline() int {
	n := len(r.Stdout.Inline) + len(r.Stderr.Inline)
	for i := range r.Outputs {
		n += len(r.Outputs[i].Inline)
	}
	return n
}

// Validate reports what is wrong with a result.
func (r *Result) Validate() error {
	if n := r.Inline(); n > InlineMax {
		return fmt.Errorf("job: result: %d bytes inline, the limit is %d", n, InlineMax)
	}
	if len(r.Outputs) > OutputsMax || len(r.Reason) > ReasonMax || wire.CleanText(r.Reason) != r.Reason {
		return fmt.Errorf("job: result: too many outputs or a bad reason")
	}
	if r.Exit != int(int32(r.Exit)) {
		return fmt.Errorf("job: result: exit code %d", r.Exit)
	}
	for _, s := range []*Stream{&r.Stdout, &r.Stderr} {
		if len(s.Inline) > 0 && s.File.Defined() {
			return fmt.Errorf("job: result: a stream is inline or a file")
		}
		if err := s.File.validate(); err != nil {
			return fmt.Errorf("job: result: %w", err)
		}
	}
	for i := range r.Outputs {
		if err := r.Outputs[i].validate(); err != nil {
			return fmt.Errorf("job: result: %w", err)
		}
	}
	u := &r.Usage
	for _, n := range []int64{int64(u.Wall), int64(u.CPU), u.Memory, u.Read, u.Written, u.Fetched} {
		if n < 0 {
			return fmt.Errorf("job: result: negative usage")
		}
	}
	return nil
}

func (o *Output) validate() error {
	if o.Name != "" {
		if err := validName(o.Name); err != nil {
			return err
		}
	}
	if len(o.Inline) > 0 && o.File.Defined() || o.Mode > 0o777 {
		return fmt.Errorf("output %.40q", o.Name)
	}
	return o.File.validate()
}

// Encode checks and encodes a result. The encoding of equal results is the same.
func (r *Result) Encode() ([]byte, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	m := &pb.Result{Exit: int32(r.Exit), Reason: r.Reason, Stdout: r.Stdout.message(), Stderr: r.Stderr.message(), Usage: &pb.Usage{
		WallUs: r.Usage.Wall.Microseconds(), CpuUs: r.Usage.CPU.Microseconds(), Memory: r.Usage.Memory,
		Read: r.Usage.Read, Written: r.Usage.Written, Fetched: r.Usage.Fetched,
	}}
	for i := range r.Outputs {
		o := &r.Outputs[i]
		m.Outputs = append(m.Outputs, &pb.Output{Name: o.Name, Mode: o.Mode, Inline: o.Inline, File: o.File.message()})
	}
	raw, err := encode(m)
	if err != nil {
		return nil, fmt.Errorf("job: result: %w", err)
	}
	if len(raw) > ResultMax {
		return nil, fmt.Errorf("job: result: %d bytes, the limit is %d", len(raw), ResultMax)
	}
	return raw, nil
}

func (s *Stream) message() *pb.Stream {
	if len(s.Inline) == 0 && !s.File.Defined() && !s.Cut {
		return nil
	}
	return &pb.Stream{Inline: s.Inline, File: s.File.message(), Cut: s.Cut}
}

// DecodeResult reads and checks what Encode wrote, of at most ResultMax bytes.
func DecodeResult(raw []byte) (*Result, error) {
	if len(raw) > ResultMax {
		return nil, fmt.Errorf("job: result: %d bytes, the limit is %d", len(raw), ResultMax)
	}
	var m pb.Result
	if err := proto.Unmarshal(raw, &m); err != nil {
		return nil, fmt.Errorf("job: result: %w", err)
	}
	r := &Result{Exit: int(m.Exit), Reason: m.Reason}
	var err error
	if r.Stdout, err = streamOf(m.Stdout); err != nil {
		return nil, err
	}
	if r.Stderr, err = streamOf(m.Stderr); err != nil {
		return nil, err
	}
	for _, o := range m.Outputs {
		f, err := fileOf(o.File)
		if err != nil {
			return nil, fmt.Errorf("job: result: %w", err)
		}
		r.Outputs = append(r.Outputs, Output{Name: o.Name, Mode: o.Mode, Inline: o.Inline, File: f})
	}
	if r.Usage, err = usageOf(m.Usage); err != nil {
		return nil, err
	}
	return r, r.Validate()
}

// usageMax bounds times in microseconds, so that they fit into a duration.
const usageMax = int64(1<<63-1) / 1000

func usageOf(m *pb.Usage) (Usage, error) {
	wall, cpu := m.GetWallUs(), m.GetCpuUs()
	if wall < 0 || cpu < 0 || wall > usageMax || cpu > usageMax {
		return Usage{}, fmt.Errorf("job: result: a time that is out of bounds")
	}
	return Usage{
		Wall: time.Duration(wall) * time.Microsecond, CPU: time.Duration(cpu) * time.Microsecond, Memory: m.GetMemory(),
		Read: m.GetRead(), Written: m.GetWritten(), Fetched: m.GetFetched(),
	}, nil
}

func streamOf(m *pb.Stream) (Stream, error) {
	f, err := fileOf(m.GetFile())
	if err != nil {
		return Stream{}, fmt.Errorf("job: result: %w", err)
	}
	return Stream{Inline: m.GetInline(), File: f, Cut: m.GetCut()}, nil
}
