package chunk

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// NameMax is the longest name of an entry in bytes: what Linux, macOS and Windows
	// file systems all accept.
	NameMax = 255
	// TargetMax is the longest target of a symbolic link in bytes: PATH_MAX of Linux.
	TargetMax = 4096
)

// CheckName tells what is wrong with name as the name of one entry of a folder, nil if
// nothing. goos is a runtime.GOOS: "windows" has further rules of its own; any other
// value, "" included, means the rules that hold everywhere and that trees are checked
// against. Line breaks and other control characters are refused everywhere, as they
// would let a stranger's name write on the screen.
func CheckName(name, goos string) error {
	switch {
	case name == "":
		return errors.New("name is empty")
	case name == "." || name == "..":
		return fmt.Errorf("name %q means another folder", name)
	case len(name) > NameMax:
		return fmt.Errorf("name %s has %d bytes, more than %d", clip(name), len(name), NameMax)
	}
	if err := checkCharacters(name); err != nil {
		return err
	}
	if goos == "windows" {
		return checkWindowsName(name)
	}
	return nil
}

func checkCharacters(name string) error {
	plain := true
	for i := 0; i < len(name); i++ {
		c := name[i]
		if c < 0x20 || c == 0x7f {
			return fmt.Errorf("name %s has a control character", clip(name))
		}
		if c == '/' {
			return fmt.Errorf("name %s has a slash", clip(name))
		}
		plain = plain && c < utf8.RuneSelf
	}
	if plain {
		return nil
	}
	if !utf8.ValidString(name) {
		return fmt.Errorf("name %s is not valid UTF-8", clip(name))
	}
	if strings.IndexFunc(name, unicode.IsControl) >= 0 { // U+0080 to U+009F
		return fmt.Errorf("name %s has a control character", clip(name))
	}
	return nil
}

// checkWindowsName follows "Naming Files, Paths, and Namespaces" of the Win32 documentation.
func checkWindowsName(name string) error {
	if i := strings.IndexAny(name, `\<>:"|?*`); i >= 0 {
		return fmt.Errorf("name %s has %q, which Windows does not allow", clip(name), name[i:i+1])
	}
	if last := name[len(name)-1]; last == '.' || last == ' ' {
		return fmt.Errorf("name %s ends in %q, which Windows does not allow", clip(name), string(last))
	}
	stem, _, _ := strings.Cut(name, ".")
	if isDevice(strings.ToUpper(strings.TrimRight(stem, " "))) {
		return fmt.Errorf("name %s is a device on Windows", clip(name))
	}
	return nil
}

func isDevice(stem string) bool {
	switch stem {
	case "CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$":
		return true
	}
	port, ok := strings.CutPrefix(stem, "COM")
	if !ok {
		port, ok = strings.CutPrefix(stem, "LPT")
	}
	if !ok {
		return false
	}
	switch port {
	case "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "¹", "²", "³":
		return true
	}
	return false
}

// CheckTarget tells what is wrong with the target of a symbolic link, nil if nothing.
// A target may be absolute, climb with "..", or be no valid UTF-8: it is kept as it is
// and never followed here.
func CheckTarget(target string) error {
	switch {
	case target == "":
		return errors.New("link target is empty")
	case len(target) > TargetMax:
		return fmt.Errorf("link target has %d bytes, more than %d", len(target), TargetMax)
	case strings.IndexByte(target, 0) >= 0:
		return fmt.Errorf("link target %s has a NUL", clip(target))
	}
	return nil
}
