package placement

import "time"

// judgeBrake finds out whether repair must stand still. The order says which reason is shown.
func (p *Planner) judgeBrake() {
	was := p.brake
	switch {
	case p.now < p.grace:
		p.brake = JustWoke
	case p.vanished():
		p.brake = Vanished
	case p.fewOnline():
		p.brake = FewOnline
	default:
		p.brake = Free
	}
	if was != Free && p.brake == Free {
		p.lifted = p.now
	}
}

// vanished reports whether too great a part of the pool went away within the window and did not come back. Who departed
// said so or was sent, and did not vanish.
func (p *Planner) vanished() bool {
	if p.cfg.FreezeShare < 0 {
		return false
	}
	gone := 0
	for i := range p.pool.lending.all() {
		if s := &p.pool.list[i]; !s.online && p.now-s.gone < p.cfg.FreezeWindow {
			gone++
		}
	}
	return gone >= vanishMin && float64(gone) >= p.cfg.FreezeShare*float64(p.pool.lending.count())
}

func (p *Planner) fewOnline() bool {
	if p.cfg.SeeShare < 0 {
		return false
	}
	online := 0
	for i := range p.pool.lending.all() {
		if p.pool.list[i].online {
			online++
		}
	}
	return float64(online) < p.cfg.SeeShare*float64(p.pool.lending.count())
}

// brakeEnds is when the brake may end by time alone.
func (p *Planner) brakeEnds() time.Duration {
	switch p.brake {
	case JustWoke:
		return p.grace
	case Vanished:
		at := never
		for i := range p.pool.lending.all() {
			if end := p.pool.list[i].gone + p.cfg.FreezeWindow; !p.pool.list[i].online && end > p.now {
				at = min(at, end)
			}
		}
		return at
	default: // the coming of others ends it, or nothing is to end
		return never
	}
}
