package cli

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoal-os/shoal/node/api/client"
)

const (
	drillFor       = time.Minute     // how long members drop out when nobody says otherwise
	drillCountdown = 5 * time.Second // in which it can still be thought better of
	drillAskWait   = 10 * time.Second
)

func newDrill(a *app) *cobra.Command {
	d := drill{a: a}
	var share string
	var stop bool
	cmd := &cobra.Command{
		Use:   "drill --kill 30%",
		Short: "Have some members drop out for a while, and see what held",
		Long: "Has members drop out of the pool for a minute, as though they had been killed, and tells whether\n" +
			"every file could be read meanwhile, whether jobs went on, and how long it took until all was as\n" +
			"before. Only members whose owners allow it take part (`shoal up --allow-drill`), chosen by chance;\n" +
			"never more than the part that is asked for, those that are away already counted; never so many\n" +
			"that a file were without a copy, or a job without the majority of its stewards.\n\n" +
			"Who drops out cuts its connections, closes its part in the pool and its tasks, and comes back by\n" +
			"itself, whatever becomes of this command. Its process and its disk go on: a crash of those, a\n" +
			"drill does not try. Ctrl-C, or --stop in another window, ends a countdown; later it ends the\n" +
			"watching, and who dropped out comes back when its time is over. --stop on a machine that dropped\n" +
			"out brings it back at once. The exit code is 1 if something did not hold.",
		Example: "  shoal drill --kill 30%\n  shoal drill --kill 34% --for 2m --json\n  shoal drill --stop",
		Args:    argsRange(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withPeer(cmd.Context(), func(c *client.Client) (err error) {
				d.c = c
				if stop && share != "" {
					return usagef("", "--kill begins a drill, and --stop ends one")
				}
				if stop {
					return a.stopDrill(cmd.Context(), c)
				}
				if d.share, err = parseShare(share); err != nil {
					return err
				}
				if d.lasts < client.DrillLeast || d.lasts > client.DrillMost {
					return usagef("", "--for is %v to %v, not %v", client.DrillLeast, client.DrillMost, d.lasts)
				}
				return d.run(cmd.Context())
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&share, "kill", "", "how many of the members drop out, as 30%")
	f.DurationVar(&d.lasts, "for", drillFor, "how long they are gone, 5s to 5m")
	f.BoolVar(&stop, "stop", false, "end a drill that is run from here, or bring this peer back from one")
	own(f)
	return cmd
}

// parseShare reads a part of the members: more than nobody, less than all.
func parseShare(text string) (float64, error) {
	if text == "" {
		return 0, usagef("write --kill 30%", "how many members are to drop out?")
	}
	n, err := strconv.ParseFloat(strings.TrimSuffix(text, "%"), 64)
	switch {
	case err != nil || math.IsNaN(n) || !strings.HasSuffix(text, "%"):
		return 0, usagef("write --kill 30%", "--kill %q is no part of the members", clean(text))
	case n <= 0:
		return 0, usagef("write --kill 30%", "--kill %s is nobody", clean(text))
	case n >= 100:
		return 0, usagef("write --kill 30%", "--kill %s is everybody, and somebody has to look on", clean(text))
	}
	return n / 100, nil
}

func (a *app) stopDrill(ctx context.Context, c *client.Client) error {
	before, err := c.Drill(ctx)
	if err != nil {
		return err
	}
	after, err := c.DrillStop(ctx)
	if err != nil {
		return err
	}
	switch {
	case a.json:
		return a.printJSON(after)
	case !before.Until.IsZero():
		a.notef("this peer is back from its drill")
	default:
		a.notef("a drill that is run from here ends now; who dropped out comes back when its time is over")
	}
	return nil
}

// drill is one run of the command.
type drill struct {
	a     *app
	c     *client.Client
	share float64 // of the members
	lasts time.Duration
	stops int // see client.Drill

	pool   client.Pool // before
	jobs   []client.Job
	files  []client.PoolFile
	space  client.Space
	out    drillReport
	fell   time.Time
	until  time.Time // the last is back by itself
	copied int64     // bytes of repairs of all members together, before
}

// errStopped is the end of a drill by `shoal drill --stop`.
var errStopped = &client.Error{Kind: client.KindRefused, Text: "the drill was stopped"}

func (d *drill) run(ctx context.Context) error {
	if err := d.look(ctx); err != nil {
		return err
	}
	consents, err := d.ask(ctx)
	if err != nil {
		return err
	}
	victims, err := chooseVictims(d.pool, consents, d.share, leastOnline(d.files), d.jobs)
	if err != nil {
		return err
	}
	if err := d.countdown(ctx, victims); err != nil {
		return err
	}
	if err := d.drop(ctx, victims); err != nil {
		return err
	}
	if err := d.watch(ctx); err != nil {
		if left := time.Until(d.until); left > 0 && (errors.Is(err, context.Canceled) || err == error(errStopped)) {
			d.a.notef("who dropped out comes back by itself, the last in %s", durationText(left))
		}
		return err
	}
	return d.tell()
}

// ask asks all members that are there for their consent, this peer first. It is what keeps a second drill away too, so one that
// cannot be asked is no matter, and one that is busy with another drill ends this one.
func (d *drill) ask(ctx context.Context) (consents map[string]bool, err error) {
	self, err := d.c.DrillAsk(ctx)
	if err != nil {
		return nil, err
	}
	d.stops = self.Stops
	consents = map[string]bool{}
	for _, m := range d.pool.Members {
		if m.Self || m.State != "online" {
			continue
		}
		one, cancel := context.WithTimeout(ctx, drillAskWait)
		s, err := d.c.At(m.ID).DrillAsk(one)
		cancel()
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case client.KindOf(err) == client.KindBusy:
			return nil, client.Errorf(client.KindBusy, "try again when that one is over", "%s is in another drill: %w", clean(m.Name), err)
		case err == nil && !s.Until.IsZero():
			return nil, client.Errorf(client.KindBusy, "try again then", "%s is in a drill until %s", clean(m.Name), s.Until.Local().Format(time.TimeOnly))
		}
		consents[m.ID] = err == nil && s.Allowed
	}
	return consents, nil
}

// countdown says who will drop out, while there is still time to stop it.
func (d *drill) countdown(ctx context.Context, victims []client.Member) error {
	var names []string
	for _, v := range victims {
		names = append(names, clean(v.Name))
	}
	left := int(drillCountdown / time.Second)
	for ; left > 0; left-- {
		d.a.notef("in %d s %s will drop out for %v; ctrl-C or `shoal drill --stop` stops it", left, strings.Join(names, ", "), d.lasts)
		if err := d.pause(ctx, time.Second); err != nil {
			return err
		}
	}
	return nil
}

// pause waits, unless the drill is stopped.
func (d *drill) pause(ctx context.Context, wait time.Duration) error {
	if err := pause(ctx, wait); err != nil {
		return err
	}
	s, err := d.c.Drill(ctx)
	if err == nil && s.Stops > d.stops {
		return errStopped
	}
	return err
}

// drop has the members drop out. One that cannot be reached, or thought better of it, stays.
func (d *drill) drop(ctx context.Context, victims []client.Member) error {
	var last error
	for _, v := range victims {
		s, err := d.c.At(v.ID).DrillFall(ctx, client.DrillFall{For: d.lasts.Seconds()})
		if err != nil {
			last = err
			d.a.notef("%s stays: %s", clean(v.Name), clean(err.Error()))
			continue
		}
		if d.fell.IsZero() {
			d.fell = time.Now()
		}
		// By this machine's clock, as those of two differ.
		d.until = time.Now().Add(d.lasts + time.Second)
		d.out.Fell = append(d.out.Fell, drillMember{ID: v.ID, Name: v.Name})
		d.a.notef("%s drops out now, and comes back by itself at %s", clean(v.Name), s.Until.Local().Format(time.TimeOnly))
	}
	if len(d.out.Fell) == 0 {
		return fmt.Errorf("nobody dropped out: %w", last)
	}
	return nil
}
