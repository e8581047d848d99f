package placement

import "fmt"

// Check verifies the planner's invariants. Tests and simulations call it after each step.
func (p *Planner) Check() error {
	shares, words := 0, p.pool.words
	if len(p.bits) != len(p.pieces)*words {
		return fmt.Errorf("placement: %d words of holders for %d pieces of %d", len(p.bits), len(p.pieces), words)
	}
	for k := range p.pieces {
		if err := p.checkPiece(int32(k)); err != nil {
			return err
		}
		if p.pieces[k].share {
			shares++
		}
	}
	if shares != p.filling.missed {
		return fmt.Errorf("placement: counted %d pieces of its share, there are %d", p.filling.missed, shares)
	}
	return p.checkFlights()
}

func (p *Planner) checkPiece(i int32) error {
	pc := &p.pieces[i]
	if !pc.id.Defined() {
		if pc.wanted > 0 || pc.due != never || !p.holders(i).empty() {
			return fmt.Errorf("placement: entry %d is not in use and not empty", i)
		}
		return nil
	}
	if k, ok := p.index[pc.id]; !ok || k != i {
		return fmt.Errorf("placement: %v is not indexed", pc.id)
	}
	if pc.wanted == 0 && p.holders(i).empty() && !p.wishes[i] && p.flight(i) < 0 {
		return fmt.Errorf("placement: %v is remembered for nothing", pc.id)
	}
	if self := p.pool.self; self >= 0 && p.holders(i).has(self) && pc.due != never {
		return fmt.Errorf("placement: %v is here and yet to be fetched", pc.id)
	}
	for s := range p.holders(i).all() {
		if !p.pool.list[s].used {
			return fmt.Errorf("placement: %v is held by nobody's slot", pc.id)
		}
	}
	return nil
}

func (p *Planner) checkFlights() error {
	var busy [2]int
	for k, f := range p.flights {
		busy[f.class]++
		if p.flight(f.piece) != k {
			return fmt.Errorf("placement: %v is fetched twice", p.pieces[f.piece].id)
		}
		if p.holders(f.piece).has(p.pool.self) {
			return fmt.Errorf("placement: %v is here and being fetched", p.pieces[f.piece].id)
		}
	}
	if busy[0] > p.cfg.Large || busy[1] > p.cfg.Small {
		return fmt.Errorf("placement: %d large and %d small fetches at once", busy[0], busy[1])
	}
	takings := 0
	for _, list := range p.takings {
		takings += len(list)
	}
	for i := range p.pool.list {
		takings -= p.pool.list[i].takings
	}
	if takings != 0 {
		return fmt.Errorf("placement: takings are miscounted by %d", takings)
	}
	return nil
}
