package cli

import (
	"context"
	"math"
	"net/url"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/shoal-os/shoal/node/api/client"
	"github.com/shoal-os/shoal/storage"
	"github.com/shoal-os/shoal/storage/chunk"
)

// seedFlags say when something has been seeded enough.
type seedFlags struct {
	ratio float64
	time  time.Duration
}

func (s *seedFlags) add(f *pflag.FlagSet) {
	f.Float64Var(&s.ratio, "seed-ratio", 0, "stop seeding once so many times its size was served (0 is never)")
	f.DurationVar(&s.time, "seed-time", 0, "stop seeding after this long (0 is never)")
}

func (s *seedFlags) set() bool { return s.ratio > 0 || s.time > 0 }

func (s *seedFlags) check() error {
	if s.ratio < 0 || math.IsNaN(s.ratio) || math.IsInf(s.ratio, 0) {
		return usagef("such as --seed-ratio 1.5", "the ratio %v makes no sense", s.ratio)
	}
	if s.time < 0 {
		return usagef("such as --seed-time 2h", "a time cannot be negative")
	}
	return nil
}

// seedOn is the rest of a get that is to seed until a limit.
func (a *app) seedOn(ctx context.Context, s *session, req client.GetRequest) error {
	if req.Car {
		a.notef("note: a CAR file is not seeded, so --seed-ratio and --seed-time have no effect here")
		return nil
	}
	if s.own == nil {
		a.notef("the running peer (process %d) seeds it until then", s.Endpoint().PID)
		return nil
	}
	link, err := chunk.ParseLink(req.Link)
	if err != nil {
		return err
	}
	return a.seed(ctx, s, []client.Share{{Root: link.Root.String(), SeedRatio: req.SeedRatio, SeedTime: req.SeedTime}})
}

// seededEnough reports that shares with a limit are all gone from the peer.
func (a *app) seededEnough(ctx context.Context, s *session, shares []client.Share) bool {
	for _, share := range shares {
		if share.SeedRatio == 0 && share.SeedTime == 0 {
			return false
		}
	}
	listed, err := s.Shares(ctx)
	if err != nil {
		return false
	}
	for _, share := range shares {
		for _, l := range listed {
			if l.Root == share.Root {
				return false
			}
		}
	}
	return true
}

// shareSource is where what is shared comes from, if not simply from paths.
type shareSource struct {
	from   []string
	car    bool
	output string
	force  bool
}

func (s *shareSource) add(f *pflag.FlagSet) {
	f.StringSliceVar(&s.from, "from", nil, "URL of a web server that has the file too; may be repeated")
	f.BoolVar(&s.car, "car", false, "unpack CAR files and share what is in them")
	f.StringVarP(&s.output, "output", "o", "", "where --car unpacks to, and --from without a path downloads to")
	f.BoolVar(&s.force, "force", false, "replace what --car finds there")
}

// requests checks paths and flags before anything is started for them.
func (s *shareSource) requests(cmd *cobra.Command, args []string) ([]client.ShareRequest, error) {
	for _, u := range s.from {
		if err := chunk.CheckWebSeed(u); err != nil {
			return nil, usagef("such as --from https://example.org/disk.iso", "--from: %s", clean(err.Error()))
		}
	}
	switch {
	case len(s.from) > 0 && s.car:
		return nil, usagef("", "--from and --car do not go together")
	case len(s.from) > 0 && len(args) == 0:
		return s.downloaded()
	case len(s.from) > 0 && len(args) > 1:
		return nil, usagef("", "--from is for one file at a time")
	case s.output != "" && !s.car:
		return nil, usagef("", "-o is for --car, and for --from without a path: a share stays where it is")
	case s.output != "" && len(args) > 1:
		return nil, usagef("", "-o is for one CAR file at a time")
	}
	if err := argsRange(1, -1, "path")(cmd, args); err != nil {
		return nil, err
	}
	paths, err := sharePaths(args)
	if err != nil {
		return nil, err
	}
	var reqs []client.ShareRequest
	for _, p := range paths {
		r := client.ShareRequest{Path: p, From: s.from, Car: s.car, Force: s.force}
		if s.output != "" {
			name := strings.TrimSuffix(filepath.Base(p), storage.CarSuffix)
			if r.Dest, err = destination(s.output, name); err != nil {
				return nil, err
			}
		}
		reqs = append(reqs, r)
	}
	return reqs, nil
}

// downloaded is the request for a file that only the web server has yet.
func (s *shareSource) downloaded() ([]client.ShareRequest, error) {
	u, err := url.Parse(s.from[0])
	if err != nil {
		return nil, usagef("", "--from: %s", clean(err.Error()))
	}
	name := path.Base(u.Path)
	if chunk.CheckName(name, runtime.GOOS) != nil || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "-") {
		name = "download"
	}
	dest, err := destination(s.output, name)
	return []client.ShareRequest{{Path: dest, From: s.from, Download: true}}, err
}
