package directory

import (
	"bytes"
	"iter"
)

// Values is the directory as a plain map of values, for those who keep self-certifying things in it and care neither
// who wrote them nor when; dht/pool's Records are. Its methods are as safe for concurrent use as the directory's.
type Values struct{ *Directory }

// Put gives key a value, unless it has that value already: writing it again would be news to everybody.
func (v Values) Put(key string, value []byte) error {
	if r, ok := v.Get(key); ok && bytes.Equal(r.Value, value) {
		return nil
	}
	return v.Directory.Put(key, value)
}

// Scan yields the keys that begin with prefix, in order, and their values.
func (v Values) Scan(prefix string) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		for r := range v.Directory.Scan(prefix) {
			if !yield(r.Key, r.Value) {
				return
			}
		}
	}
}

// Watch has f called after a key that begins with prefix changed; see Directory.Watch.
func (v Values) Watch(prefix string, f func(key string)) (stop func()) {
	return v.Directory.Watch(prefix, func(r *Record) { f(r.Key) })
}
