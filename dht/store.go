package dht

import (
	"context"
	"errors"
	"strings"
	"sync"

	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	"github.com/libp2p/go-libp2p-kad-dht/records"
)

const (
	// recordsMax bounds the provider records that this peer keeps for others. One takes about 300 bytes, so 20 MB.
	recordsMax = 64 << 10
	// recordsPerPeer bounds those of one provider: a peer that shares more than this many roots is not found by its
	// oldest ones here, and cannot push out everybody else's.
	recordsPerPeer = 4 << 10
)

// errNotRecord says that kad-dht stored something that is no provider record. It is a fault of ours: the store was
// wired to something else.
var errNotRecord = errors.New("dht: not a provider record")

// recordStore keeps provider records in memory, bounded. kad-dht's own in-memory store has no bound at all, so any
// stranger could fill this peer's memory with records; and it walks all records for each query, where this one is
// indexed by the record's key.
//
// A record is named /providers/KEY/PROVIDER. When there is no room, the provider that holds the most loses its oldest:
// whoever floods pushes out only itself.
type recordStore struct {
	max, perPeer int

	mu     sync.Mutex
	byKey  map[string]map[string]*record // KEY, PROVIDER
	byPeer map[string]*recordList        // PROVIDER
	count  int
}

var _ datastore.Batching = (*recordStore)(nil)

// record is one provider record, an element of its provider's list.
type record struct {
	key, peer  string
	value      []byte
	prev, next *record
}

// recordList is the records of one provider, oldest first.
type recordList struct {
	head, tail *record
	len        int
}

func newRecordStore(limit, perPeer int) *recordStore {
	return &recordStore{
		max: limit, perPeer: perPeer,
		byKey:  make(map[string]map[string]*record),
		byPeer: make(map[string]*recordList),
	}
}

// splitName takes a record's name apart; ok is false for any other name. A name without provider has peer == "".
func splitName(name string) (key, peer string, ok bool) {
	rest, ok := strings.CutPrefix(name, records.ProvidersKeyPrefix)
	if !ok || rest == "" {
		return "", "", false
	}
	key, peer, _ = strings.Cut(rest, "/")
	return key, peer, key != "" && !strings.Contains(peer, "/")
}

// Put stores a record as the newest of its provider.
func (s *recordStore) Put(_ context.Context, name datastore.Key, value []byte) error {
	key, peer, ok := splitName(name.String())
	if !ok || peer == "" {
		return errNotRecord
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.byKey[key][peer]; old != nil {
		s.drop(old)
	}
	if list := s.byPeer[peer]; list != nil && list.len >= s.perPeer {
		s.drop(list.head)
	}
	if s.count >= s.max {
		s.drop(s.heaviest().head)
	}
	s.insert(&record{key: key, peer: peer, value: append([]byte(nil), value...)})
	return nil
}

func (s *recordStore) insert(r *record) {
	if s.byKey[r.key] == nil {
		s.byKey[r.key] = make(map[string]*record)
	}
	s.byKey[r.key][r.peer] = r
	list := s.byPeer[r.peer]
	if list == nil {
		list = &recordList{}
		s.byPeer[r.peer] = list
	}
	list.append(r)
	s.count++
}

func (s *recordStore) drop(r *record) {
	if delete(s.byKey[r.key], r.peer); len(s.byKey[r.key]) == 0 {
		delete(s.byKey, r.key)
	}
	list := s.byPeer[r.peer]
	if list.remove(r); list.len == 0 {
		delete(s.byPeer, r.peer)
	}
	s.count--
}

// heaviest returns the longest list. It walks all providers, which happens only while the store is full.
func (s *recordStore) heaviest() *recordList {
	var most *recordList
	for _, list := range s.byPeer {
		if most == nil || list.len > most.len {
			most = list
		}
	}
	return most
}

func (l *recordList) append(r *record) {
	r.prev = l.tail
	if l.tail == nil {
		l.head = r
	} else {
		l.tail.next = r
	}
	l.tail = r
	l.len++
}

func (l *recordList) remove(r *record) {
	if r.prev == nil {
		l.head = r.next
	} else {
		r.prev.next = r.next
	}
	if r.next == nil {
		l.tail = r.prev
	} else {
		r.next.prev = r.prev
	}
	r.prev, r.next = nil, nil
	l.len--
}

// Get returns a record's value.
func (s *recordStore) Get(_ context.Context, name datastore.Key) ([]byte, error) {
	key, peer, _ := splitName(name.String())
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.byKey[key][peer]
	if r == nil {
		return nil, datastore.ErrNotFound
	}
	return r.value, nil
}

// Has reports whether there is such a record.
func (s *recordStore) Has(ctx context.Context, name datastore.Key) (bool, error) {
	_, err := s.Get(ctx, name)
	return err == nil, nil
}

// GetSize returns the size of a record's value, in bytes.
func (s *recordStore) GetSize(ctx context.Context, name datastore.Key) (int, error) {
	v, err := s.Get(ctx, name)
	if err != nil {
		return -1, err
	}
	return len(v), nil
}

// Delete removes a record; one that is not there is no error.
func (s *recordStore) Delete(_ context.Context, name datastore.Key) error {
	key, peer, _ := splitName(name.String())
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.byKey[key][peer]; r != nil {
		s.drop(r)
	}
	return nil
}

// Query returns the records of one key, or all. Those are the two that kad-dht asks for.
func (s *recordStore) Query(_ context.Context, q query.Query) (query.Results, error) {
	key, _, one := splitName(q.Prefix)
	var entries []query.Entry
	s.mu.Lock()
	if one {
		entries = appendRecords(entries, s.byKey[key])
	} else {
		for _, recs := range s.byKey {
			entries = appendRecords(entries, recs)
		}
	}
	s.mu.Unlock()
	return query.NaiveQueryApply(q, query.ResultsWithEntries(q, entries)), nil
}

func appendRecords(entries []query.Entry, recs map[string]*record) []query.Entry {
	for _, r := range recs {
		entries = append(entries, query.Entry{
			Key:   records.ProvidersKeyPrefix + r.key + "/" + r.peer,
			Value: r.value,
			Size:  len(r.value),
		})
	}
	return entries
}

// Batch gathers writes; datastore's plain one does.
func (s *recordStore) Batch(context.Context) (datastore.Batch, error) {
	return datastore.NewBasicBatch(s), nil
}

// Sync has nothing to wait for.
func (s *recordStore) Sync(context.Context, datastore.Key) error { return nil }

// Close has nothing to release.
func (s *recordStore) Close() error { return nil }
