// Command tile is the program that runs on the pool: it draws one band of the picture, which one says SHOAL_TASK, and writes
// its points to standard output.
package main

import (
	"fmt"
	"os"
	"strconv"

	"github.com/shoal-os/shoal/examples/render/fractal"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "tile: WIDTH HEIGHT:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	var numbers [4]int
	for i, text := range append(args, os.Getenv("SHOAL_TASK"), os.Getenv("SHOAL_TASKS")) {
		n, err := strconv.Atoi(text)
		if err != nil || i >= len(numbers) {
			return fmt.Errorf("%q: %v", text, err)
		}
		numbers[i] = n
	}
	width, height, task, tasks := numbers[0], numbers[1], numbers[2], numbers[3]
	_, err := os.Stdout.Write(fractal.Rows(width, height, height*task/tasks, height*(task+1)/tasks))
	return err
}
