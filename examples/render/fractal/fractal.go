// Package fractal draws the Mandelbrot set, row by row. It owns the picture and nothing else: who draws which rows, and where,
// is its callers' affair.
package fractal

import "math"

// iterations is how long a point is followed before it counts as inside.
const iterations = 2000

// Rows returns the rows from first to before end of a picture of some size, three bytes for each of its points.
func Rows(width, height, first, end int) []byte {
	out := make([]byte, 0, 3*width*(end-first))
	for y := first; y < end; y++ {
		for x := range width {
			// A spiral at the edge of the set; a picture's height is 0.004 of the plane.
			scale := 0.004 / float64(height)
			out = append(out, colour(complex(-0.7453+scale*float64(x-width/2), 0.1127+scale*float64(y-height/2)))...)
		}
	}
	return out
}

// colour follows z² + c and says how soon it runs away.
func colour(c complex128) []byte {
	var x, y float64
	for i := range iterations {
		x, y = x*x-y*y+real(c), 2*x*y+imag(c)
		if d := x*x + y*y; d > 1<<16 {
			t := 0.06 * (float64(i) + 1 - math.Log2(math.Log2(d)/2)) // smooth between whole steps
			return []byte{wave(t), wave(t + 0.7), wave(t + 1.6)}
		}
	}
	return []byte{0, 0, 0}
}

func wave(t float64) byte { return byte(127.5 - 127.5*math.Cos(t)) }
