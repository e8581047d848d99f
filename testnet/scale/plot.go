package scale

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// The plot's measures, in pixels.
const (
	plotWide, plotHigh = 640, 400
	plotLeft, plotTop  = 76, 44
	plotRight, plotLow = 36, 86 // margins
)

// shades tell series apart on light and dark alike; shapes do for those who see no colours.
var shades = [...]string{"#3b82f6", "#e8590c", "#2f9e44", "#ae3ec9", "#c08a00", "#e03131"}

// style makes a plot follow the reader's light or dark.
const style = `<style>
text{font:13px system-ui,-apple-system,"Segoe UI",sans-serif;fill:#24292f}
.title{font-size:15px;font-weight:600}
.small{font-size:12px}
.grid{stroke:#d0d7de;stroke-width:1}
.frame{stroke:#8c959f;stroke-width:1;fill:none}
@media (prefers-color-scheme:dark){text{fill:#e6edf3}.grid{stroke:#30363d}.frame{stroke:#6e7681}}
</style>`

// axis is one logarithmic axis: from a power of ten to another.
type axis struct{ low, high int }

func axisOf(series []Series, of func(Point) float64) (a axis, ok bool) {
	least, most := math.Inf(1), math.Inf(-1)
	for _, s := range series {
		for _, p := range s.Points {
			if v := of(p); v > 0 {
				least, most = min(least, v), max(most, v)
			}
		}
	}
	if math.IsInf(least, 1) {
		return axis{}, false
	}
	a = axis{int(math.Floor(math.Log10(least) + 1e-9)), int(math.Ceil(math.Log10(most) - 1e-9))}
	if a.high == a.low {
		a.high++
	}
	return a, true
}

// at is where a value is on the axis, from 0 to 1.
func (a axis) at(v float64) float64 { return (math.Log10(v) - float64(a.low)) / float64(a.high-a.low) }

// SVG draws the plot: curves on two logarithmic axes, measured points filled, others hollow and joined by dashes.
func (p Plot) SVG() ([]byte, error) {
	x, ok := axisOf(p.Series, func(p Point) float64 { return p.X })
	y, also := axisOf(p.Series, func(p Point) float64 { return p.Y })
	if !ok || !also {
		return nil, fmt.Errorf("scale: plot %s: it has no points", p.Name)
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img">`+"\n", plotWide, p.high(), plotWide, p.high())
	fmt.Fprintf(&b, "<title>%s</title>\n%s\n", html.EscapeString(p.Title), style)
	fmt.Fprintf(&b, `<text class="title" x="%d" y="24">%s</text>`+"\n", plotLeft, html.EscapeString(p.Title))
	p.grid(&b, x, y)
	for _, top := range []bool{false, true} { // what was measured lies on top
		for i, s := range p.Series {
			if (s.Basis == OfHosts) == top {
				s.draw(&b, i, x, y)
				s.legend(&b, i)
			}
		}
	}
	b.WriteString("</svg>\n")
	return []byte(b.String()), nil
}

// high is the height with room for the legend.
func (p Plot) high() int { return plotHigh + 20*((len(p.Series)+1)/2) }

func column(x axis, v float64) float64 {
	return plotLeft + x.at(v)*(plotWide-plotLeft-plotRight)
}

func line(y axis, v float64) float64 {
	return plotHigh - plotLow - y.at(v)*(plotHigh-plotTop-plotLow)
}

func (p Plot) grid(b *strings.Builder, x, y axis) {
	right, low := plotWide-plotRight, plotHigh-plotLow
	for e := x.low; e <= x.high; e++ {
		at := column(x, math.Pow10(e))
		fmt.Fprintf(b, `<line class="grid" x1="%.1f" y1="%d" x2="%.1f" y2="%d"/><text class="small" x="%.1f" y="%d" text-anchor="middle">%s</text>`+"\n",
			at, plotTop, at, low, at, low+18, count(math.Pow10(e)))
	}
	step := max(1, (y.high-y.low+7)/8)
	for e := y.low; e <= y.high; e += step {
		at := line(y, math.Pow10(e))
		fmt.Fprintf(b, `<line class="grid" x1="%d" y1="%.1f" x2="%d" y2="%.1f"/><text class="small" x="%d" y="%.1f" text-anchor="end">%s</text>`+"\n",
			plotLeft, at, right, at, plotLeft-8, at+4, tick(e))
	}
	fmt.Fprintf(b, `<rect class="frame" x="%d" y="%d" width="%d" height="%d"/>`+"\n", plotLeft, plotTop, right-plotLeft, low-plotTop)
	fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="middle">%s</text>`+"\n", (plotLeft+right)/2, low+40, html.EscapeString(p.X))
	fmt.Fprintf(b, `<text transform="translate(18 %d) rotate(-90)" text-anchor="middle">%s</text>`+"\n", (plotTop+low)/2, html.EscapeString(p.Y))
}

// tick names a power of ten.
func tick(e int) string {
	prefix := map[int]string{-9: "n", -6: "µ", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T"}
	third := e - ((e%3)+3)%3
	if name, ok := prefix[third]; ok {
		return fmt.Sprintf("%.0f", math.Pow10(e-third)) + strings.TrimRight(" "+name, " ")
	}
	return fmt.Sprintf("1e%d", e)
}

func (s Series) draw(b *strings.Builder, i int, x, y axis) {
	shade := shades[i%len(shades)]
	var path []string
	for _, p := range s.Points {
		if p.X > 0 && p.Y > 0 {
			path = append(path, fmt.Sprintf("%.1f,%.1f", column(x, p.X), line(y, p.Y)))
		}
	}
	fmt.Fprintf(b, `<polyline fill="none" stroke="%s" stroke-width="2"%s points="%s"/>`+"\n", shade, s.dash(), strings.Join(path, " "))
	for _, at := range path {
		var px, py float64
		_, _ = fmt.Sscanf(at, "%f,%f", &px, &py) // written above
		s.mark(b, i, px, py)
	}
}

func (s Series) dash() string {
	if s.Basis == OfHosts {
		return ""
	}
	return ` stroke-dasharray="6 4"`
}

// mark is one point: filled where it was measured.
func (s Series) mark(b *strings.Builder, i int, x, y float64) {
	shade, fill := shades[i%len(shades)], shades[i%len(shades)]
	if s.Basis != OfHosts {
		fill = "none"
	}
	paint := fmt.Sprintf(`fill="%s" stroke="%s" stroke-width="2"`, fill, shade)
	switch i % 3 {
	case 0:
		fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="4" %s/>`+"\n", x, y, paint)
	case 1:
		fmt.Fprintf(b, `<rect x="%.1f" y="%.1f" width="8" height="8" %s/>`+"\n", x-4, y-4, paint)
	default:
		fmt.Fprintf(b, `<path d="M%.1f %.1fl5 9h-10z" %s/>`+"\n", x, y-5, paint)
	}
}

func (s Series) legend(b *strings.Builder, i int) {
	x := plotLeft + (i%2)*((plotWide-plotLeft)/2)
	y := plotHigh - 22 + 20*(i/2)
	fmt.Fprintf(b, `<line x1="%d" y1="%d" x2="%d" y2="%d" stroke="%s" stroke-width="2"%s/>`+"\n", x, y, x+24, y, shades[i%len(shades)], s.dash())
	s.mark(b, i, float64(x+12), float64(y))
	fmt.Fprintf(b, `<text class="small" x="%d" y="%d">%s (%s)</text>`+"\n", x+32, y+4, html.EscapeString(s.Name), s.Basis)
}
