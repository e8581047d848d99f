package job

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/shoal-os/shoal/storage/chunk"
)

// ID names a job: the SHA-256 of its signed spec. It is comparable, and it is also the id of the job's quorum group.
type ID [32]byte

// shortLen is how many characters of an id are shown where space is short.
const shortLen = 12

// String returns the whole id, 64 hexadecimal digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Short returns the first characters, for the screen.
func (id ID) Short() string { return id.String()[:shortLen] }

// Defined reports whether the id is not the zero value.
func (id ID) Defined() bool { return id != ID{} }

// CID names the block that is the signed spec.
func (id ID) CID() chunk.CID { return chunk.CID{Codec: chunk.Raw, Sum: id} }

// ParseID reads what String wrote.
func ParseID(s string) (ID, error) {
	raw, err := hex.DecodeString(s)
	if err != nil || len(raw) != len(ID{}) || strings.ToLower(s) != s {
		return ID{}, errors.New("job: this is no job id")
	}
	return ID(raw), nil
}

// Token names one attempt at a task. Tokens of a job only grow: a later leading steward has a greater term, and within a
// term the sequence grows with each grant. The zero token names no attempt.
type Token struct {
	Term uint64 // Raft term of the steward that granted it
	Seq  uint64 // grants of that term, from 1
}

// Less reports whether t was granted before u.
func (t Token) Less(u Token) bool {
	return t.Term < u.Term || t.Term == u.Term && t.Seq < u.Seq
}

// String is short, for people: "3.14".
func (t Token) String() string { return fmt.Sprintf("%d.%d", t.Term, t.Seq) }

// Fence is the form in which a task sees its token (SHOAL_TOKEN): 32 hexadecimal digits, which compare as text in the
// order in which the tokens were granted. A service outside the pool that remembers the greatest it has seen can refuse
// an attempt that was superseded.
func (t Token) Fence() string { return fmt.Sprintf("%016x%016x", t.Term, t.Seq) }
