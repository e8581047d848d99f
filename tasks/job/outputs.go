package job

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/shoal-os/shoal/tasks/job/pb"
)

// Bounds of a manifest.
const (
	// ManifestFiles is how many files an attempt may leave.
	ManifestFiles = 10_000
	// ManifestMax bounds an encoded manifest, in bytes.
	ManifestMax = 8 << 20
)

// A result with more than OutputsMax files has one output without a name, whose file is a manifest: the list of them.

// Manifest returns the file of a result's manifest, if it has one.
func (r *Result) Manifest() (File, bool) {
	if len(r.Outputs) == 1 && r.Outputs[0].Name == "" && r.Outputs[0].File.Defined() {
		return r.Outputs[0].File, true
	}
	return File{}, false
}

// EncodeManifest writes a manifest.
func EncodeManifest(list []Output) ([]byte, error) {
	if err := validManifest(list); err != nil {
		return nil, err
	}
	m := &pb.Result{}
	for i := range list {
		o := &list[i]
		m.Outputs = append(m.Outputs, &pb.Output{Name: o.Name, Mode: o.Mode, Inline: o.Inline, File: o.File.message()})
	}
	raw, err := encode(m)
	if err == nil && len(raw) > ManifestMax {
		err = fmt.Errorf("%d bytes, the limit is %d", len(raw), ManifestMax)
	}
	if err != nil {
		return nil, fmt.Errorf("job: manifest: %w", err)
	}
	return raw, nil
}

func validManifest(list []Output) error {
	if len(list) > ManifestFiles {
		return fmt.Errorf("job: manifest: %d files, the limit is %d", len(list), ManifestFiles)
	}
	seen := make(map[string]bool, len(list))
	for i := range list {
		o := &list[i]
		if err := o.validate(); err != nil {
			return fmt.Errorf("job: manifest: %w", err)
		}
		if o.Name == "" || seen[o.Name] || len(o.Inline) > InlineMax {
			return fmt.Errorf("job: manifest: output %.40q", o.Name)
		}
		seen[o.Name] = true
	}
	return nil
}

// DecodeManifest reads and checks what EncodeManifest wrote.
func DecodeManifest(raw []byte) ([]Output, error) {
	if len(raw) > ManifestMax {
		return nil, fmt.Errorf("job: manifest: %d bytes, the limit is %d", len(raw), ManifestMax)
	}
	var m pb.Result
	if err := proto.Unmarshal(raw, &m); err != nil {
		return nil, fmt.Errorf("job: manifest: %w", err)
	}
	var out []Output
	for _, o := range m.Outputs {
		f, err := fileOf(o.File)
		if err != nil {
			return nil, fmt.Errorf("job: manifest: %w", err)
		}
		out = append(out, Output{Name: o.Name, Mode: o.Mode, Inline: o.Inline, File: f})
	}
	return out, validManifest(out)
}
