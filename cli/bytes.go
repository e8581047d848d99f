package cli

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// bytesFlag is a number of bytes as a flag: 4096, 100MB, 4GiB.
type bytesFlag int64

// String implements [pflag.Value]; 0 is how a default looks.
func (b *bytesFlag) String() string { return strconv.FormatInt(int64(*b), 10) }

// Type implements [pflag.Value].
func (*bytesFlag) Type() string { return "size" }

// units of bytes, the longer names first.
var units = []struct {
	name string
	size float64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12},
	{"K", 1 << 10}, {"M", 1 << 20}, {"G", 1 << 30}, {"T", 1 << 40}, {"B", 1},
}

// Set implements [pflag.Value].
func (b *bytesFlag) Set(text string) error {
	number, size := strings.TrimSpace(text), 1.0
	for _, u := range units {
		if len(number) > len(u.name) && strings.EqualFold(number[len(number)-len(u.name):], u.name) {
			number, size = strings.TrimSpace(number[:len(number)-len(u.name)]), u.size
			break
		}
	}
	n, err := strconv.ParseFloat(number, 64)
	if err != nil || math.IsNaN(n) || n*size > math.MaxInt64/2 || n*size < -1 {
		return fmt.Errorf("%q is no size like 4GiB", text)
	}
	*b = bytesFlag(n * size)
	return nil
}
