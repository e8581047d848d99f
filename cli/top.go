package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/shoal-os/shoal/node/api/client"
	"github.com/spf13/cobra"
)

// topInterval is how often the live view asks.
const topInterval = time.Second

func newTop(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "top",
		Short: "Watch the pool as one machine",
		Long: "Shows the pool's totals and members, live and full-screen on a terminal; q ends it. Where\n" +
			"stdout is no terminal it prints them once.",
		Args: argsRange(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.dial(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			if a.screen && !a.json {
				return a.watchTop(cmd.Context(), c)
			}
			t, err := readTop(cmd.Context(), c)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(t)
			}
			_, err = fmt.Fprint(a.out, t.text(time.Now()))
			return err
		},
	}
}

// topData is what top shows.
type topData struct {
	Status client.Status `json:"status"`
	Pool   client.Pool   `json:"pool"`
	Worker client.Worker `json:"worker"`
	Jobs   []client.Job  `json:"jobs"`

	taken  time.Time
	upload float64 // bytes a second since the look before
}

func readTop(ctx context.Context, c *client.Client) (topData, error) {
	t := topData{taken: time.Now(), upload: -1}
	var err error
	if t.Status, err = c.Status(ctx); err != nil {
		return t, err
	}
	if t.Pool, err = c.Pool(ctx); err != nil {
		return t, err
	}
	if t.Worker, err = c.Worker(ctx); err != nil {
		return t, err
	}
	jobs, err := c.Jobs(ctx, false)
	t.Jobs = slices.DeleteFunc(jobs, client.Job.Over)
	return t, err
}

// after completes t with the rates since the look before.
func (t topData) after(before topData) topData {
	if took := t.taken.Sub(before.taken).Seconds(); took > 0 && !before.taken.IsZero() && t.Status.PID == before.Status.PID {
		t.upload = max(float64(t.Status.Uploaded-before.Status.Uploaded)/took, 0)
	}
	return t
}

// text is all of it, as lines.
func (t topData) text(now time.Time) string {
	var b strings.Builder
	p, s := t.Pool, t.Status
	fmt.Fprintf(&b, "pool %s  %d of %s online  seen from %s, up %s\n",
		cut(clean(p.ID), 8), p.Totals.Members, plural(p.All.Members, "member"), clean(s.Name), durationText(now.Sub(s.Started)))
	fmt.Fprintf(&b, "cores %d   memory %s   space %s, %s free   names %d\n",
		p.Totals.Cores, bytesText(p.Totals.Memory), bytesText(p.Totals.Space), bytesText(p.Totals.Free), p.Names.Records)
	fmt.Fprintf(&b, "shares %d, %s   fetching %d   uploaded %s", s.Shares, bytesText(s.Shared), s.Fetching, bytesText(s.Uploaded))
	if t.upload >= 0 {
		fmt.Fprintf(&b, " (%s)", rateText(t.upload))
	}
	fmt.Fprintf(&b, "\ntasks: %s %s\n\n", clean(s.Name), lendText(t.Worker))
	_ = table(&b, memberRows(p, now)) // a strings.Builder never fails
	if len(t.Jobs) > 0 {
		b.WriteString("\n")
		_ = table(&b, jobRows(t.Jobs, now))
	}
	return b.String()
}

// watchTop draws until the person, or a signal, ends it.
func (a *app) watchTop(ctx context.Context, c *client.Client) error {
	m := topModel{ctx: ctx, client: c}
	end, err := tea.NewProgram(m, tea.WithContext(ctx), tea.WithInput(a.in), tea.WithOutput(a.out), tea.WithoutSignalHandler()).Run()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil && !errors.Is(err, tea.ErrProgramKilled) {
		return fmt.Errorf("top: %w", err)
	}
	if m, ok := end.(topModel); ok {
		return m.fatal
	}
	return nil
}

// topModel is the live view. It is a value, as bubbletea wants it.
type topModel struct {
	ctx           context.Context // of the command; each look ends with it
	client        *client.Client
	data          topData
	problem       error // of the last look
	fatal         error
	width, height int
}

type topLook struct {
	data topData
	err  error
}

type topTick struct{}

// Init implements [tea.Model].
func (m topModel) Init() tea.Cmd { return m.look }

// look asks the peer.
func (m topModel) look() tea.Msg {
	data, err := readTop(m.ctx, m.client)
	return topLook{data, err}
}

// Update implements [tea.Model].
func (m topModel) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case tea.KeyPressMsg:
		switch msg.String() {
		case "q", "esc", "ctrl+c":
			return m, tea.Quit
		}
	case topTick:
		return m, m.look
	case topLook:
		m.problem = msg.err
		if errors.Is(msg.err, client.ErrNoPeer) {
			m.fatal = msg.err
			return m, tea.Quit
		}
		if msg.err == nil {
			m.data = msg.data.after(m.data)
		}
		return m, tea.Tick(topInterval, func(time.Time) tea.Msg { return topTick{} })
	}
	return m, nil
}

// View implements [tea.Model].
func (m topModel) View() tea.View {
	var lines []string
	switch {
	case m.data.taken.IsZero() && m.problem == nil:
		lines = []string{"…"}
	case !m.data.taken.IsZero():
		lines = strings.Split(strings.TrimRight(m.data.text(time.Now()), "\n"), "\n")
	}
	if m.problem != nil {
		lines = append(lines, "", cleanLine(m.problem.Error()))
	}
	if room := m.height - 2; room > 0 && len(lines) > room {
		lines = append(lines[:room-1:room-1], fmt.Sprintf("… and %d more", len(lines)-room+1))
	}
	lines = append(lines, "", "q quits")
	if m.width > 0 {
		for i, line := range lines {
			lines[i] = cut(line, m.width)
		}
	}
	v := tea.NewView(strings.Join(lines, "\n"))
	v.AltScreen = true
	v.WindowTitle = "shoal top"
	return v
}
