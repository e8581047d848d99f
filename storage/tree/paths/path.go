package paths

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"

	"github.com/shoal-os/shoal/storage/chunk"
)

const (
	// PathMax is the longest path, in bytes, its leading slash included: PATH_MAX of Linux.
	PathMax = 4096
	// NameMax is the longest name of one file or folder, in bytes.
	NameMax = chunk.NameMax
	// DepthMax is how many names a path may have.
	DepthMax = chunk.DepthMax
)

// Root is the path of the folder that holds everything.
const Root = "/"

// ErrPath is what every text that is no path is, by errors.Is.
var ErrPath = errors.New("not a path")

// Hash stands for a path in the keys of records.
type Hash [16]byte

// HashOf hashes a path as it is written in a record.
func HashOf(path string) Hash {
	sum := sha256.Sum256([]byte(path))
	return Hash(sum[:len(Hash{})])
}

// Clean makes a path of what a person or a program wrote: a leading slash is added, doubled and trailing ones and "."
// are taken out, and it is brought into the normal form NFC, so that what a Mac writes apart (NFD) is the same name as
// elsewhere. ".." is refused rather than resolved: no path ever means something above it. Errors are ErrPath.
func Clean(path string) (string, error) {
	var b strings.Builder
	for name := range strings.SplitSeq(path, "/") {
		if name == "" || name == "." {
			continue
		}
		b.WriteByte('/')
		b.WriteString(norm.NFC.String(name))
	}
	if b.Len() == 0 {
		return Root, nil
	}
	clean := b.String()
	return clean, Check(clean)
}

// Check tells what is wrong with a path of somebody else's record, nil if nothing. It must be absolute and in its one
// spelling, except that it need not be in NFC: another build may see that differently, and what it wrote must not be
// lost for it. Errors are ErrPath.
func Check(path string) error {
	switch {
	case path == Root:
		return nil
	case len(path) > PathMax:
		return fmt.Errorf("%w: it has %d bytes, the limit is %d", ErrPath, len(path), PathMax)
	case !strings.HasPrefix(path, "/"):
		return fmt.Errorf("%w: it does not begin with a slash", ErrPath)
	case strings.Count(path, "/") > DepthMax:
		return fmt.Errorf("%w: %d folders inside each other, the limit is %d", ErrPath, strings.Count(path, "/"), DepthMax)
	}
	for name := range strings.SplitSeq(path[1:], "/") {
		if err := chunk.CheckName(name, ""); err != nil {
			return fmt.Errorf("%w: %w", ErrPath, err)
		}
	}
	return nil
}

// Portable tells which system cannot hold the path's names, nil if every one can.
func Portable(path string) error {
	if path == Root {
		return nil
	}
	for name := range strings.SplitSeq(path[1:], "/") {
		if err := chunk.CheckName(name, "windows"); err != nil {
			return err
		}
	}
	return nil
}

// Split gives the folder that holds a path, and the path's name in it. The root is in itself, without a name.
func Split(path string) (dir, name string) {
	i := strings.LastIndexByte(path, '/')
	if i <= 0 {
		return Root, path[i+1:]
	}
	return path[:i], path[i+1:]
}

// Join puts a name behind a folder.
func Join(dir, name string) string {
	if dir == Root {
		return dir + name
	}
	return dir + "/" + name
}

// Inside reports whether path is dir or below it.
func Inside(path, dir string) bool {
	return dir == Root || path == dir || len(path) > len(dir) && path[len(dir)] == '/' && path[:len(dir)] == dir
}

// Fold maps a name to what file systems that ignore case, or how a letter with its accents is spelt, take for the same
// name: its NFC, each letter by the least of its cases. NTFS and APFS have tables of their own that differ from this
// in rare letters; a name that slips through is told when a file is written there.
func Fold(name string) string {
	plain := true
	for i := 0; i < len(name); i++ {
		plain = plain && name[i] < 0x80 && (name[i] < 'A' || name[i] > 'Z')
	}
	if plain {
		return name
	}
	return norm.NFC.String(strings.Map(foldRune, norm.NFC.String(name)))
}

// foldRune gives one letter for all that differ from it only in case.
func foldRune(r rune) rune {
	if 'A' <= r && r <= 'Z' {
		return r + 'a' - 'A'
	}
	if r < 0x80 {
		// The Kelvin sign and the long s fold to ASCII letters, from their side.
		return r
	}
	least := r
	for c := unicode.SimpleFold(r); c != r; c = unicode.SimpleFold(c) {
		least = min(least, c)
	}
	if 'A' <= least && least <= 'Z' {
		least += 'a' - 'A'
	}
	return least
}
