package testnet

import (
	"context"
	"fmt"
	"slices"

	"github.com/shoal-os/shoal/node/api/client"
	"github.com/shoal-os/shoal/testnet/script"
)

// works: each of these runs a task of the job now, by its own word. Which, is remembered for passed.
func (w *world) works(ctx context.Context, a script.Action) error {
	k := w.work(a.Name)
	if k == nil {
		return fmt.Errorf("%s was never acknowledged", a.Name)
	}
	for _, i := range a.Peers {
		p := w.peers[i]
		c, err := p.api()
		if err != nil {
			return err
		}
		s, err := c.Worker(ctx)
		if err != nil {
			return err
		}
		held := slices.DeleteFunc(s.Tasks, func(l client.JobLease) bool { return l.Job != k.id || l.Phase != "running" })
		if len(held) == 0 {
			return fmt.Errorf("%s runs nothing of %s", p.name, k.name)
		}
		w.mu.Lock()
		k.held[p.name] = held
		w.mu.Unlock()
	}
	return nil
}

// passed: of what each of these ran when it was last expected to work, a task has the result of somebody else.
func (w *world) passed(ctx context.Context, a script.Action) error {
	k := w.work(a.Name)
	live := w.live()
	if k == nil || len(live) == 0 {
		return fmt.Errorf("%s was never acknowledged, or nobody can be asked", a.Name)
	}
	c, err := live[0].api()
	if err != nil {
		return err
	}
	other := map[int]string{}
	err = c.JobResults(ctx, k.id, 0, len(k.sums), func(r client.TaskResult) error {
		other[r.Task] = r.Worker
		return w.tell(k, r)
	})
	if err != nil {
		return err
	}
	for _, i := range a.Peers {
		p := w.peers[i]
		w.mu.Lock()
		held := k.held[p.name]
		w.mu.Unlock()
		if !slices.ContainsFunc(held, func(l client.JobLease) bool { return other[l.Task] != "" && other[l.Task] != p.name }) {
			return fmt.Errorf("nobody else has a result of the %d tasks of %s that %s ran", len(held), k.name, p.name)
		}
	}
	return nil
}

// tell remembers which attempt's result of a task was told first: it is the one for ever.
func (w *world) tell(k *work, r client.TaskResult) error {
	if r.State != client.TaskDone {
		return nil
	}
	id := r.Worker + " " + r.Token
	w.mu.Lock()
	defer w.mu.Unlock()
	if was, ok := k.told[r.Task]; ok && was != id {
		return fmt.Errorf("task %d of %s was committed twice: first as %s, then as %s", r.Task, k.name, was, id)
	}
	k.told[r.Task] = id
	return nil
}
