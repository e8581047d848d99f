package cli

import (
	"strings"

	"github.com/spf13/pflag"

	"github.com/shoal-os/shoal/node/api/client"
	"github.com/shoal-os/shoal/storage"
)

// getChoice is what of a link a get fetches, and in which order.
type getChoice struct {
	only       []string
	sequential bool
	car        bool
	private    bool
}

func (c *getChoice) add(f *pflag.FlagSet) {
	f.StringSliceVar(&c.only, "only", nil, "fetch only files and folders that match, such as '*.jpg' or 'docs/**/*.pdf'; may be repeated")
	f.BoolVar(&c.sequential, "sequential", false, "fetch in order, to play or read it while it arrives")
	f.BoolVar(&c.car, "car", false, "write it as one CAR file; so does -o FILE.car")
	f.BoolVar(&c.private, "allow-private-web-seeds", false, "let web seeds of the link be inside this network; only for links of people you trust")
}

// apply checks the choice before anything is started for it.
func (c *getChoice) apply(req *client.GetRequest) error {
	if err := storage.CheckPatterns(c.only); err != nil {
		return usagef("see `shoal get --help`; put patterns into quotes, for shells have a use for * themselves", "--only: %s", clean(err.Error()))
	}
	req.Only, req.Sequential, req.PrivateWebSeeds = c.only, c.sequential, c.private
	if c.car && !strings.HasSuffix(req.Dest, storage.CarSuffix) {
		req.Dest += storage.CarSuffix
	}
	if req.Car = req.Car || c.car; req.Car && len(c.only) > 0 {
		return usagef("", "--only has no meaning for a CAR file, which holds all of a root")
	}
	return nil
}

// meansCAR tells whether an output asks for a CAR file, unless that is what the
// link is to.
func meansCAR(output, name string) bool {
	return strings.HasSuffix(output, storage.CarSuffix) && !strings.HasSuffix(name, storage.CarSuffix)
}

// sourcesText says where bytes came from.
func sourcesText(r client.GetResult) string {
	web := 0
	for _, w := range r.Web {
		if w.Bytes > 0 {
			web++
		}
	}
	switch {
	case web == 0:
		return plural(len(r.Providers), "peer")
	case len(r.Providers) == 0:
		return plural(web, "web seed")
	}
	return plural(len(r.Providers), "peer") + " and " + plural(web, "web seed")
}
