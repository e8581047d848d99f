package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/shoal-os/shoal/dht/wire"
)

const (
	red    = "31"
	green  = "32"
	yellow = "33"
	dim    = "2"
)

// clean makes text from elsewhere safe for the screen.
func clean(s string) string { return wire.CleanText(s) }

// cleanLine is clean for an error text, which may quote text from elsewhere.
func cleanLine(s string) string { return clean(strings.TrimSpace(s)) }

// paint colours text where colours are wanted.
func (a *app) paint(code, text string) string {
	if !a.color {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// notef tells the person something that is not the answer.
func (a *app) notef(format string, args ...any) {
	fmt.Fprintf(a.err, format+"\n", args...)
}

// printJSON prints a value on one line per top-level value, indented for eyes.
func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// table prints rows in columns. Cells are made safe for the screen here too, as
// with --peer all of them come from elsewhere.
func table(w io.Writer, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		for i, cell := range row {
			row[i] = clean(cell)
		}
		fmt.Fprintln(t, strings.TrimRight(strings.Join(row, "\t"), "\t"))
	}
	return t.Flush()
}

// bytesText is a size for people: 1.5 GiB. Unknown sizes are negative.
func bytesText(n int64) string {
	if n < 0 {
		return "?"
	}
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	value, unit := float64(n)/1024, 0
	for value >= 999.5 && unit < 5 {
		value, unit = value/1024, unit+1
	}
	if value < 9.95 {
		return fmt.Sprintf("%.1f %ciB", value, "KMGTPE"[unit])
	}
	return fmt.Sprintf("%.0f %ciB", value, "KMGTPE"[unit])
}

func rateText(perSecond float64) string { return bytesText(int64(perSecond)) + "/s" }

// durationText is a time for people: 4s, 3m20s, 2h05m, 3d4h.
func durationText(d time.Duration) string {
	d = d.Round(time.Second)
	s := int(d.Seconds())
	switch {
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 3600:
		return fmt.Sprintf("%dm%02ds", s/60, s%60)
	case s < 86400:
		return fmt.Sprintf("%dh%02dm", s/3600, s/60%60)
	default:
		return fmt.Sprintf("%dd%dh", s/86400, s/3600%24)
	}
}

func plural(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}
