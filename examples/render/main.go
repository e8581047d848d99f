// Command render draws a picture with all the cores of a pool: it compiles the program tile to WebAssembly, has the peer that
// runs on this machine ask the pool for one task for each band of the picture, and writes what comes back as a PNG.
//
//	shoal up --detach
//	go run ./examples/render picture.png
//
// It shows how a Go program hands out work by node/api/client, and owns no logic of its own.
package main

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/shoal-os/shoal/node/api/client"
)

const (
	width, height = 1600, 1000
	bands         = 50
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: render FILE.png")
		os.Exit(2)
	}
	if err := render(context.Background(), os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "render:", err)
		os.Exit(1)
	}
}

// render does it all, with the peer of the home that SHOAL_HOME names.
func render(ctx context.Context, file string) error {
	home := os.Getenv("SHOAL_HOME")
	if home == "" {
		user, err := os.UserHomeDir()
		if err != nil {
			return err
		}
		home = filepath.Join(user, ".shoal")
	}
	peer, err := client.Open(home)
	if err != nil {
		return err
	}
	defer peer.Close()
	dir, err := os.MkdirTemp("", "render-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	module, err := compile(ctx, dir)
	if err != nil {
		return err
	}
	began := time.Now()
	picture, workers, err := draw(ctx, peer, module, width, height, bands)
	if err != nil {
		return err
	}
	fmt.Printf("%d bands in %.1f s on %d peers\n", bands, time.Since(began).Seconds(), len(workers))
	return save(file, picture)
}

// compile makes the module that the tasks run.
func compile(ctx context.Context, dir string) (string, error) {
	module := filepath.Join(dir, "tile.wasm")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", module, "github.com/shoal-os/shoal/examples/render/tile")
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return module, nil
}

// draw asks for the work, waits for it, and puts the bands together. workers counts the bands that each peer drew.
func draw(ctx context.Context, peer *client.Client, module string, width, height, bands int) (picture image.Image, workers map[string]int, err error) {
	job, err := peer.JobSubmit(ctx, client.JobRequest{
		Name:    "render",
		Program: client.JobProgram{Kind: "wasm", Module: &client.JobSource{File: module}, Args: []string{fmt.Sprint(width), fmt.Sprint(height)}},
		Split:   &client.JobSplit{Count: bands},
	}, nil)
	if err != nil {
		return nil, nil, err
	}
	end, err := peer.JobWatch(ctx, job.ID, func(client.JobEvent) error { return nil })
	if err != nil {
		return nil, nil, err
	}
	if end.State != client.JobDone {
		return nil, nil, fmt.Errorf("%d of %d bands failed", end.Failed, end.Tasks)
	}
	var points bytes.Buffer
	workers = map[string]int{}
	err = peer.JobResults(ctx, job.ID, 0, 0, func(band client.TaskResult) error {
		workers[band.Worker]++
		return peer.JobOutput(ctx, job.ID, band.Task, client.OutputStdout, "", &points, nil)
	})
	if err != nil {
		return nil, nil, err
	}
	picture, err = fromPoints(points.Bytes(), width, height)
	return picture, workers, err
}

// fromPoints makes an image of three bytes for each point.
func fromPoints(points []byte, width, height int) (image.Image, error) {
	if len(points) != 3*width*height {
		return nil, fmt.Errorf("%d bytes came back, and %d make the picture", len(points), 3*width*height)
	}
	picture := image.NewNRGBA(image.Rect(0, 0, width, height))
	for i := range width * height {
		picture.Set(i%width, i/width, color.NRGBA{points[3*i], points[3*i+1], points[3*i+2], 255})
	}
	return picture, nil
}

func save(file string, picture image.Image) error {
	var out bytes.Buffer
	if err := png.Encode(&out, picture); err != nil {
		return err
	}
	return os.WriteFile(file, out.Bytes(), 0o644)
}
