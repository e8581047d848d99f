package quorum

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"

	"github.com/shoal-os/shoal/storage/folder"
	"github.com/shoal-os/shoal/storage/quorum/wal"
)

// A snapshot is a file of its own: the magic, the length of the machine's bytes, their CRC-32C, and they. Its name says of which
// group it is, and up to which entry of Raft's log. Numbers are big-endian.
const (
	snapshotMagic  = "shoalsnp\x01"
	snapshotHead   = len(snapshotMagic) + 8 + 4
	snapshotSuffix = ".snap"
	snapshotTemp   = ".snap.tmp"
)

func snapshotName(id GroupID, index uint64) string {
	return fmt.Sprintf("%x.%016x%s", id[:], index, snapshotSuffix)
}

func parseSnapshotName(name string) (id GroupID, index uint64, ok bool) {
	stem, ok := strings.CutSuffix(name, snapshotSuffix)
	first, second, ok2 := strings.Cut(stem, ".")
	raw, err := hex.DecodeString(first)
	if !ok || !ok2 || err != nil || len(raw) != len(id) {
		return id, 0, false
	}
	copy(id[:], raw)
	index, err = strconv.ParseUint(second, 16, 64)
	return id, index, err == nil && snapshotName(id, index) == name
}

func crc(data []byte) uint32 { return crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)) }

// lockFiles waits until nobody else writes or deletes snapshots.
func (e *Engine) lockFiles() { _ = e.files.Acquire(context.Background(), 1) } // without an end it does not fail

// storeSnapshot makes a snapshot durable.
func (e *Engine) storeSnapshot(id GroupID, index uint64, data []byte) error {
	name := snapshotName(id, index)
	temp := strings.TrimSuffix(name, snapshotSuffix) + snapshotTemp
	head := append(make([]byte, 0, snapshotHead), snapshotMagic...)
	head = binary.BigEndian.AppendUint64(head, uint64(len(data)))
	head = binary.BigEndian.AppendUint32(head, crc(data))
	e.lockFiles()
	defer e.files.Release(1)
	f, err := e.fs.Create(temp)
	if err != nil {
		return err
	}
	_, err = f.Write(head)
	if err == nil && len(data) > 0 {
		_, err = f.Write(data)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = e.fs.Rename(temp, name)
	}
	if err != nil {
		return errors.Join(err, e.fs.Remove(temp))
	}
	return e.fs.Sync("")
}

// readSnapshot returns the machine's bytes.
func (e *Engine) readSnapshot(id GroupID, index uint64) ([]byte, error) {
	data, err := folder.ReadFile(e.fs, snapshotName(id, index), int64(snapshotHead+SnapshotMax+1))
	if err != nil {
		return nil, fmt.Errorf("snapshot %d: %w", index, err)
	}
	return parseSnapshot(data)
}

func parseSnapshot(data []byte) ([]byte, error) {
	if len(data) < snapshotHead || string(data[:len(snapshotMagic)]) != snapshotMagic {
		return nil, fmt.Errorf("snapshot: %w", wal.ErrDamaged)
	}
	size := binary.BigEndian.Uint64(data[len(snapshotMagic):])
	sum := binary.BigEndian.Uint32(data[snapshotHead-4:])
	if data = data[snapshotHead:]; uint64(len(data)) != size || crc(data) != sum {
		return nil, fmt.Errorf("snapshot: %w", wal.ErrDamaged)
	}
	return data, nil
}

// removeSnapshots deletes those of a group before an index. What cannot be deleted is when the engine opens again.
func (e *Engine) removeSnapshots(id GroupID, before uint64) {
	e.lockFiles()
	defer e.files.Release(1)
	infos, err := e.fs.List("")
	if err != nil {
		return
	}
	for _, info := range infos {
		if of, index, ok := parseSnapshotName(info.Name); ok && of == id && index < before {
			_ = e.fs.Remove(info.Name)
		}
	}
}

// tidySnapshots deletes at opening the snapshots that no group goes on from.
func (e *Engine) tidySnapshots() error {
	infos, err := e.fs.List("")
	if err != nil {
		return err
	}
	for _, info := range infos {
		id, index, ok := parseSnapshotName(info.Name)
		if ok {
			st := e.dormant[id]
			ok = st == nil || st.Snapshot.Fresh || st.Snapshot.Index != index
		} else {
			ok = strings.HasSuffix(info.Name, snapshotTemp)
		}
		if ok {
			if err := e.fs.Remove(info.Name); err != nil {
				return err
			}
		}
	}
	return nil
}
