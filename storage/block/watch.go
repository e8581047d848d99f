package block

// Changed returns a channel that is closed when the root next changes: leaves
// are marked, the download is finished, or another record takes its place. It
// must be taken before looking at what it is to tell of.
func (r *Root) Changed() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.watch == nil {
		r.watch = make(chan struct{})
	}
	return r.watch
}

// changed wakes whoever waits for Changed. The caller holds mu.
func (r *Root) changed() {
	if r.watch != nil {
		close(r.watch)
		r.watch = nil
	}
}
