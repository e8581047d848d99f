package job

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/shoal-os/shoal/tasks/job/pb"
)

// Task is one task as a runner needs it, but for the attempt's token.
type Task struct {
	Index   int
	Reduce  bool // its inputs are all other tasks' outputs, which the caller provides
	Command Command
	Inputs  []Input
	Stdin   Source
	Slice   *Range // standard input is this part of Stdin.File
}

// Range is a part of a file, in bytes.
type Range struct {
	First, Size int64
}

// Task resolves task i. item is what ItemAt read when the split is a List, and is not looked at otherwise. Of a slice
// that is cut at lines the range is the nominal one; CutAt moves its ends.
func (s *Spec) Task(i int, item Item) (Task, error) {
	n := s.Tasks()
	switch {
	case i < 0 || i >= s.All():
		return Task{}, fmt.Errorf("job: task %d of %d", i, s.All())
	case i == n:
		return Task{Index: i, Reduce: true, Command: s.Reduce.with("")}, nil
	}
	t := Task{Index: i, Stdin: s.Stdin}
	switch s.Split.Kind {
	case Items:
		item = s.Split.Items[i]
	case Slices:
		item = Item{Text: strconv.Itoa(i)}
		first := int64(i) * s.Split.Slice
		t.Stdin = Source{File: s.Split.File}
		t.Slice = &Range{first, min(s.Split.Slice, s.Split.File.Size-first)}
	case Count:
		item = Item{Text: strconv.Itoa(i)}
	case One:
		item = Item{Text: "{}"} // nothing to stand in for it
	}
	if len(s.Inputs)+len(item.Inputs) > 2*InputsMax {
		return Task{}, errors.New("job: too many inputs")
	}
	t.Command = s.Command.with(item.Text)
	t.Inputs = append(append([]Input(nil), s.Inputs...), item.Inputs...)
	return t, nil
}

// with puts text in the place of "{}" in the arguments.
func (c Command) with(text string) Command {
	args := make([]string, len(c.Args))
	for i, a := range c.Args {
		args[i] = strings.ReplaceAll(a, "{}", text)
	}
	c.Args = args
	return c
}

// Env returns the variables that every attempt finds beside its own: SHOAL_JOB, SHOAL_TASK, SHOAL_TASKS (without the
// reduce) and SHOAL_TOKEN.
func Env(id ID, s *Spec, task int, t Token) []string {
	return []string{
		"SHOAL_JOB=" + id.String(), "SHOAL_TASK=" + strconv.Itoa(task),
		"SHOAL_TASKS=" + strconv.Itoa(s.Tasks()), "SHOAL_TOKEN=" + t.Fence(),
	}
}

// lineMax is how far a line end is looked for, in bytes; a longer line is cut where the slice is.
const lineMax = 16 << 20

// CutAt moves the nominal start x of a slice to after the first line end at or after x-1, so that a line belongs to
// the slice in which it begins (as Hadoop's TextInputFormat has it). A slice runs from CutAt of its start to CutAt of its
// end; neighbours find the same place by themselves. buf is for reading and may be any size, some 64 KiB are good.
func CutAt(r io.ReaderAt, size, x int64, buf []byte) (int64, error) {
	if x <= 0 || x >= size {
		return max(0, min(x, size)), nil
	}
	for at := x - 1; at < min(size, x+lineMax); {
		n, err := r.ReadAt(buf[:min(int64(len(buf)), size-at)], at)
		if i := bytes.IndexByte(buf[:n], '\n'); i >= 0 {
			return at + int64(i) + 1, nil
		}
		if at += int64(n); err != nil && at < size {
			return 0, fmt.Errorf("job: slice: %w", err)
		}
		if n == 0 {
			return 0, fmt.Errorf("job: slice: %w", io.ErrUnexpectedEOF)
		}
	}
	if size-x <= lineMax {
		return size, nil
	}
	return x, nil
}

// The file of a List: itemsMagic, the number of items, one offset for each and one for the end, each eight bytes from
// the greatest to the least, and the items. So a worker reads only what it runs.
const (
	itemsMagic = "shoal items v1\x00\x00"
	itemsHead  = len(itemsMagic) + 8
	itemMax    = 256 << 10 // bytes of one encoded item
)

// EncodeItems writes the file of a List. At most TasksMax items.
func EncodeItems(w io.Writer, items []Item) error {
	if len(items) < 1 || len(items) > TasksMax {
		return fmt.Errorf("job: a list of %d items", len(items))
	}
	var body []byte
	head := append(make([]byte, 0, itemsHead+8*(len(items)+1)), itemsMagic...)
	head = binary.BigEndian.AppendUint64(head, uint64(len(items)))
	base := uint64(itemsHead + 8*(len(items)+1))
	for i := range items {
		if err := items[i].validate(); err != nil {
			return fmt.Errorf("job: item %d: %w", i, err)
		}
		raw, err := encode(items[i].message())
		if err != nil || len(raw) > itemMax {
			return fmt.Errorf("job: item %d has %d bytes, the limit is %d", i, len(raw), itemMax)
		}
		head = binary.BigEndian.AppendUint64(head, base+uint64(len(body)))
		body = append(body, raw...)
	}
	head = binary.BigEndian.AppendUint64(head, base+uint64(len(body)))
	if _, err := w.Write(head); err != nil {
		return fmt.Errorf("job: write list: %w", err)
	}
	if _, err := w.Write(body); err != nil {
		return fmt.Errorf("job: write list: %w", err)
	}
	return nil
}

// ItemAt reads item i of a list of count items.
func ItemAt(r io.ReaderAt, count, i int) (Item, error) {
	if i < 0 || i >= count {
		return Item{}, fmt.Errorf("job: item %d of %d", i, count)
	}
	var head [itemsHead]byte
	if _, err := r.ReadAt(head[:], 0); err != nil {
		return Item{}, fmt.Errorf("job: list: %w", noEOF(err))
	}
	if string(head[:len(itemsMagic)]) != itemsMagic || binary.BigEndian.Uint64(head[len(itemsMagic):]) != uint64(count) {
		return Item{}, fmt.Errorf("job: the file is not a list of %d items", count)
	}
	var ends [16]byte
	if _, err := r.ReadAt(ends[:], int64(itemsHead+8*i)); err != nil {
		return Item{}, fmt.Errorf("job: list: %w", noEOF(err))
	}
	first, end := binary.BigEndian.Uint64(ends[:8]), binary.BigEndian.Uint64(ends[8:])
	if base := uint64(itemsHead + 8*(count+1)); first < base || end < first || end > FilesMax || end-first > itemMax {
		return Item{}, fmt.Errorf("job: item %d has a bad place in the list", i)
	}
	raw := make([]byte, end-first)
	if n, err := r.ReadAt(raw, int64(first)); n < len(raw) {
		return Item{}, fmt.Errorf("job: list: %w", noEOF(err))
	}
	var m pb.Item
	if err := proto.Unmarshal(raw, &m); err != nil {
		return Item{}, fmt.Errorf("job: item %d: %w", i, err)
	}
	it, err := itemOf(&m)
	if err != nil {
		return Item{}, fmt.Errorf("job: item %d: %w", i, err)
	}
	if err := it.validate(); err != nil {
		return Item{}, fmt.Errorf("job: item %d: %w", i, err)
	}
	return it, nil
}

// noEOF turns an end into an unexpected one: what is read here must be there.
func noEOF(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
