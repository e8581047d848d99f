package cli

import (
	"strings"

	"rsc.io/qr"
)

// quietZone is the light border that a scanner needs, in modules (ISO/IEC
// 18004 asks for four; two are enough on a screen and save lines).
const quietZone = 2

// qrText draws text as a QR code, two rows of modules to a line, or returns ""
// when it is too long for one. Light modules are drawn and dark ones left out,
// which suits terminals with a dark background; with colours it suits any.
func qrText(text string, color bool) string {
	code, err := qr.Encode(text, qr.L)
	if err != nil {
		return ""
	}
	light := func(x, y int) bool { return !code.Black(x, y) } // outside the code too
	var b strings.Builder
	for y := -quietZone; y < code.Size+quietZone; y += 2 {
		if color {
			b.WriteString("\x1b[97;40m")
		}
		for x := -quietZone; x < code.Size+quietZone; x++ {
			lower := light(x, y+1) && y+1 < code.Size+quietZone
			b.WriteRune(half(light(x, y), lower))
		}
		if color {
			b.WriteString("\x1b[0m")
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func half(upper, lower bool) rune {
	switch {
	case upper && lower:
		return '█'
	case upper:
		return '▀'
	case lower:
		return '▄'
	default:
		return ' '
	}
}
