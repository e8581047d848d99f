package chunk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// Decoding accepts exactly what encoding writes, with three allowances for what other
// tools write: names may be missing from the links of files, links may be CIDv0, and
// mode and mtime (UnixFS 1.5) may be there and are ignored.

// linkLenMin is the least that a link takes: two tags, two lengths and a CIDv0. It keeps
// a node that only frames links from having room made for them.
const linkLenMin = 4 + cidLenV0

var (
	errVarint   = errors.New("a number is cut off, too long or not in its shortest form")
	errCutOff   = errors.New("a field runs over the end")
	errNotInDag = errors.New("a field that dag-pb does not have, or has elsewhere")
	errNoHeader = errors.New("it has no UnixFS data")
	errMissing  = errors.New("its UnixFS data lacks a field")
)

// reader reads protobuf fields from data[at:end].
type reader struct {
	data    []byte
	at, end int
}

func (r *reader) more() bool { return r.at < r.end }

// varint reads a number in its shortest form.
func (r *reader) varint() (uint64, error) {
	v, n := binary.Uvarint(r.data[r.at:r.end])
	if n <= 0 || n > 1 && r.data[r.at+n-1] == 0 {
		return 0, errVarint
	}
	r.at += n
	return v, nil
}

// tag reads the one byte tag of a field; every known one has one byte.
func (r *reader) tag() byte {
	t := r.data[r.at]
	r.at++
	return t
}

// peek tells whether the next field has tag t.
func (r *reader) peek(t byte) bool { return r.at < r.end && r.data[r.at] == t }

// field reads a length and gives a reader of as many bytes.
func (r *reader) field() (reader, error) {
	n, err := r.varint()
	if err != nil {
		return reader{}, err
	}
	if n > uint64(r.end-r.at) {
		return reader{}, errCutOff
	}
	f := reader{r.data, r.at, r.at + int(n)}
	r.at = f.end
	return f, nil
}

func (r *reader) bytes() []byte { return r.data[r.at:r.end] }

// size reads a number that counts bytes.
func (r *reader) size() (int64, error) {
	v, err := r.varint()
	if err != nil {
		return 0, err
	}
	if v > math.MaxInt64 {
		return 0, fmt.Errorf("size %d is out of range", v)
	}
	return int64(v), nil
}

// decodeNode decodes a block of codec dag-pb. Beside the form, it checks all that one
// node alone can show: names, their order, sizes that add up.
func decodeNode(data []byte) (*node, error) {
	links, header, err := decodeDagPB(data)
	if err != nil {
		return nil, err
	}
	n := &node{links: links}
	if err := n.decodeHeader(header); err != nil {
		return nil, err
	}
	return n, n.checkLinks()
}

// decodeDagPB splits a node into its links and its UnixFS data.
func decodeDagPB(data []byte) ([]link, reader, error) {
	r := reader{data, 0, len(data)}
	links := make([]link, 0, min(countLinks(r), len(data)/linkLenMin))
	names := ""
	for r.peek(tagNodeLink) {
		r.at++
		f, err := r.field()
		if err != nil {
			return nil, reader{}, err
		}
		l, err := decodeLink(f, &names)
		if err != nil {
			return nil, reader{}, fmt.Errorf("link %d: %w", len(links), err)
		}
		links = append(links, l)
	}
	if !r.more() {
		return nil, reader{}, errNoHeader
	}
	if r.tag() != tagNodeData {
		return nil, reader{}, errNotInDag
	}
	header, err := r.field()
	if err != nil {
		return nil, reader{}, err
	}
	if r.more() {
		return nil, reader{}, fmt.Errorf("%d bytes after its end", r.end-r.at)
	}
	return links, header, nil
}

// countLinks counts the links of a node as far as they are well framed.
func countLinks(r reader) (n int) {
	for r.peek(tagNodeLink) {
		r.at++
		if _, err := r.field(); err != nil {
			break
		}
		n++
	}
	return n
}

// decodeLink decodes a PBLink. names becomes a copy of the whole node when the first
// name is met, so that names cost one allocation in all.
func decodeLink(r reader, names *string) (link, error) {
	if !r.peek(tagLinkHash) {
		return link{}, errors.New("it has no CID")
	}
	r.at++
	f, err := r.field()
	if err != nil {
		return link{}, err
	}
	l := link{size: -1}
	c, n, err := CIDFromBytes(f.bytes())
	if err != nil {
		return link{}, err
	}
	if n != f.end-f.at {
		return link{}, errors.New("its CID has bytes after its end")
	}
	l.cid = c
	if r.peek(tagLinkName) {
		r.at++
		if f, err = r.field(); err != nil {
			return link{}, err
		}
		if f.more() {
			if *names == "" {
				*names = string(r.data)
			}
			l.name = (*names)[f.at:f.end]
		}
	}
	if r.peek(tagLinkTsize) {
		r.at++
		if l.size, err = r.size(); err != nil {
			return link{}, err
		}
	}
	if r.more() {
		return link{}, errNotInDag
	}
	return l, nil
}

// exactly reads a field that has only one acceptable value.
func (r *reader) exactly(tag byte, want uint64, what string) error {
	if !r.peek(tag) {
		return errMissing
	}
	r.at++
	v, err := r.varint()
	if err != nil {
		return err
	}
	if v != want {
		return fmt.Errorf("%s is %d where profile unixfs-v1-2025 has %d", what, v, want)
	}
	return nil
}
