package market

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/canon"
	"github.com/shoal-os/shoal/tasks/job"
)

// CommandKind says what a command does to the ledger. Numbers are part of the log and append-only.
type CommandKind uint8

// The kinds of command.
const (
	Submit CommandKind = 1 // Data is the signed spec: the first command of a group
	Finish CommandKind = 2 // Data is a result: the compare-and-set that closes a task
	Fail   CommandKind = 3 // Data is a result with a reason: an attempt that counts against its task
	Cancel CommandKind = 4 // Data is a reason in words, of at most NoteMax bytes
)

// Command is one entry's part. Kind says which fields count.
type Command struct {
	Kind CommandKind
	Lease
	// Checked is the term in which the leading steward found the token current, or 0 if it did not look because the job
	// allows salvage. Of an exclusive job the ledger takes a result only in that very term: what a deposed leader
	// believed of its leases is worth nothing in a later one.
	Checked uint64
	By      peer.ID       // whose attempt it was; of Submit and Cancel, who asks
	Ran     time.Duration // of Finish
	Data    []byte
}

const (
	commandVersion = 1
	// BatchMax bounds the commands of an entry.
	BatchMax = 4096
	// EntryMax bounds an encoded batch, in bytes. EncodeBatch refuses more; a submission fits.
	EntryMax   = 1 << 20
	peerIDMax  = 64
	failureMax = 2 << 10 // bytes of a failed attempt's result; a few are kept with a poisoned task
)

// FailureMax is the most bytes that the result of a failed attempt may have.
const FailureMax = failureMax

// EncodeBatch makes an entry of commands. at is the proposer's wall clock, which the ledger keeps with what it closes; it
// decides nothing but how long results are kept.
func EncodeBatch(at time.Time, commands []Command) ([]byte, error) {
	if len(commands) < 1 || len(commands) > BatchMax {
		return nil, fmt.Errorf("market: a batch of %d commands", len(commands))
	}
	buf := []byte{commandVersion}
	buf = binary.AppendUvarint(buf, uint64(max(0, at.UnixMilli())))
	buf = binary.AppendUvarint(buf, uint64(len(commands)))
	for i := range commands {
		buf = commands[i].append(buf)
	}
	if len(buf) > EntryMax {
		return nil, fmt.Errorf("market: a batch of %d bytes, the limit is %d", len(buf), EntryMax)
	}
	return buf, nil
}

// Batches cuts commands into batches that EncodeBatch takes, in order.
func Batches(commands []Command) (out [][]Command) {
	for len(commands) > 0 {
		n, size := 0, 64
		for n < min(len(commands), BatchMax) && (n == 0 || size+commands[n].Size() <= EntryMax) {
			size += commands[n].Size()
			n++
		}
		out = append(out, commands[:n])
		commands = commands[n:]
	}
	return out
}

// Size bounds the bytes that a command takes in a batch, for those who fill one.
func (c *Command) Size() int { return len(c.Data) + len(c.By) + 64 }

func (c *Command) append(buf []byte) []byte {
	buf = append(buf, byte(c.Kind))
	buf = appendLease(buf, c.Lease)
	buf = binary.AppendUvarint(buf, c.Checked)
	buf = canon.AppendBytes(buf, c.By)
	buf = binary.AppendUvarint(buf, uint64(c.Ran/time.Microsecond))
	return canon.AppendBytes(buf, c.Data)
}

func appendLease(buf []byte, l Lease) []byte {
	buf = binary.AppendUvarint(buf, uint64(l.Task))
	buf = binary.AppendUvarint(buf, l.Token.Term)
	return binary.AppendUvarint(buf, l.Token.Seq)
}

// DecodeBatch reads what EncodeBatch wrote.
func DecodeBatch(data []byte) (at time.Time, commands []Command, err error) {
	d := decoder{canon.Decoder{Rest: data}}
	if v := d.Byte(); d.Err == nil && v != commandVersion {
		d.Err = fmt.Errorf("version %d", v)
	}
	at = d.time()
	n := d.Count(BatchMax)
	for range n {
		commands = append(commands, d.command())
		if d.Err != nil {
			break
		}
	}
	if err := d.End(); err != nil {
		return time.Time{}, nil, fmt.Errorf("market: batch: %w", err)
	}
	return at, commands, nil
}

func (d *decoder) command() Command {
	c := Command{Kind: CommandKind(d.Byte()), Lease: d.lease(), Checked: d.Uvarint(), By: peer.ID(d.Bytes(peerIDMax)), Ran: d.duration()}
	limit := job.ResultMax
	switch c.Kind {
	case Submit:
		limit = job.SignedMax
	case Fail:
		limit = failureMax
	case Cancel:
		limit = NoteMax
	case Finish:
	default:
		d.Fail(fmt.Errorf("kind %d of command", c.Kind))
	}
	c.Data = d.Bytes(limit)
	return c
}

// EncodeReplies and DecodeReplies carry one status for each command of a batch, in their order.
func encodeReplies(list []Status) []byte {
	out := make([]byte, len(list))
	for i, s := range list {
		out[i] = byte(s)
	}
	return out
}

// DecodeReplies reads the answer to a proposed batch: one status for each command, in their order. An empty answer is an
// error: the entry could not be read.
func DecodeReplies(data []byte) ([]Status, error) {
	if len(data) < 1 || len(data) > BatchMax {
		return nil, errors.New("market: the entry was not understood")
	}
	out := make([]Status, len(data))
	for i, b := range data {
		out[i] = Status(b)
	}
	return out, nil
}
