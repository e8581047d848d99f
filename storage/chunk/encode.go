package chunk

import (
	"encoding/binary"

	"google.golang.org/protobuf/encoding/protowire"
)

// The two formats, in the one form in which they are written and accepted. Every tag is
// one byte: field number and wire type.
//
// dag-pb, https://ipld.io/specs/codecs/dag-pb/spec/: links before data.
//
//	PBNode { Data bytes = 1; repeated PBLink Links = 2 }
//	PBLink { Hash bytes = 1; Name string = 2; Tsize uint64 = 3 }
//
// UnixFS 1.5, https://specs.ipfs.tech/unixfs/, the Data of a PBNode: fields ascending, lists not packed.
const (
	tagNodeData  = 1<<3 | byte(protowire.BytesType)
	tagNodeLink  = 2<<3 | byte(protowire.BytesType)
	tagLinkHash  = 1<<3 | byte(protowire.BytesType)
	tagLinkName  = 2<<3 | byte(protowire.BytesType)
	tagLinkTsize = 3<<3 | byte(protowire.VarintType)

	tagType      = 1<<3 | byte(protowire.VarintType)
	tagData      = 2<<3 | byte(protowire.BytesType)
	tagFileSize  = 3<<3 | byte(protowire.VarintType)
	tagBlockSize = 4<<3 | byte(protowire.VarintType)
	tagHashType  = 5<<3 | byte(protowire.VarintType)
	tagFanOut    = 6<<3 | byte(protowire.VarintType)
	tagMode      = 7<<3 | byte(protowire.VarintType)
	tagMtime     = 8<<3 | byte(protowire.BytesType)
)

// UnixFS data types. 0 (raw) and 3 (metadata) are not of the profile.
const (
	typeDir     = 1
	typeFile    = 2
	typeSymlink = 4
	typeShard   = 5
)

// hashMurmur3 names murmur3-x64-64 in the multicodec table.
const hashMurmur3 = 0x22

// linkLen gives the bytes of a PBLink and of the same wrapped in its node.
func linkLen(nameLen int, tsize uint64) (inner, wrapped int) {
	inner = 2 + cidLen + 1 + protowire.SizeBytes(nameLen) + 1 + protowire.SizeVarint(tsize)
	return inner, 1 + protowire.SizeBytes(inner)
}

// appendLink appends a link named prefix+name.
func appendLink(b []byte, c CID, prefix, name string, tsize uint64) []byte {
	inner, _ := linkLen(len(prefix)+len(name), tsize)
	b = append(b, tagNodeLink)
	b = binary.AppendUvarint(b, uint64(inner))
	b = append(b, tagLinkHash, cidLen)
	b = c.appendBytes(b)
	b = append(b, tagLinkName)
	b = binary.AppendUvarint(b, uint64(len(prefix)+len(name)))
	b = append(b, prefix...)
	b = append(b, name...)
	b = append(b, tagLinkTsize)
	return binary.AppendUvarint(b, tsize)
}

// appendVarintField appends a tag and a number.
func appendVarintField(b []byte, tag byte, v uint64) []byte {
	return binary.AppendUvarint(append(b, tag), v)
}

// appendBytesField appends a tag, a length and bytes.
func appendBytesField(b []byte, tag byte, v []byte) []byte {
	b = binary.AppendUvarint(append(b, tag), uint64(len(v)))
	return append(b, v...)
}
