package dht

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	"github.com/libp2p/go-libp2p-kad-dht/records"
)

func recordKey(key, peer string) datastore.Key {
	return datastore.NewKey(records.ProvidersKeyPrefix + key + "/" + peer)
}

func put(t *testing.T, s *recordStore, key, peer string) {
	t.Helper()
	if err := s.Put(t.Context(), recordKey(key, peer), []byte(key+peer)); err != nil {
		t.Fatal(err)
	}
}

func has(t *testing.T, s *recordStore, key, peer string) bool {
	t.Helper()
	ok, err := s.Has(t.Context(), recordKey(key, peer))
	if err != nil {
		t.Fatal(err)
	}
	return ok
}

func ask(t *testing.T, s *recordStore, prefix string) []string {
	t.Helper()
	res, err := s.Query(t.Context(), query.Query{Prefix: prefix})
	if err != nil {
		t.Fatal(err)
	}
	entries, err := res.Rest()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Key+"="+string(e.Value))
	}
	slices.Sort(out)
	return out
}

func TestStore(t *testing.T) {
	s := newRecordStore(100, 100)
	put(t, s, "A", "P")
	put(t, s, "A", "Q")
	put(t, s, "AB", "P")
	if got, want := ask(t, s, "/providers/A"), []string{"/providers/A/P=AP", "/providers/A/Q=AQ"}; !slices.Equal(got, want) {
		t.Errorf("one key: %v", got)
	}
	if got := ask(t, s, "/providers/"); len(got) != 3 {
		t.Errorf("all: %v", got)
	}
	if got := ask(t, s, "/providers/none"); len(got) != 0 {
		t.Errorf("none: %v", got)
	}
	if n, err := s.GetSize(t.Context(), recordKey("AB", "P")); n != 3 || err != nil {
		t.Errorf("size %d, %v", n, err)
	}
	if err := s.Delete(t.Context(), recordKey("A", "P")); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), recordKey("A", "P")); err != nil {
		t.Errorf("deleting twice: %v", err)
	}
	if _, err := s.Get(t.Context(), recordKey("A", "P")); !errors.Is(err, datastore.ErrNotFound) {
		t.Errorf("a deleted record: %v", err)
	}
	if _, err := s.GetSize(t.Context(), recordKey("A", "P")); !errors.Is(err, datastore.ErrNotFound) {
		t.Errorf("a deleted record's size: %v", err)
	}
	for _, name := range []string{"/other/A/P", "/providers/A", "/providers/A/P/x", "/"} {
		if err := s.Put(t.Context(), datastore.NewKey(name), nil); !errors.Is(err, errNotRecord) {
			t.Errorf("%s was stored: %v", name, err)
		}
	}
	b, err := s.Batch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(b.Put(t.Context(), recordKey("C", "P"), nil), b.Commit(t.Context())); err != nil {
		t.Fatal(err)
	}
	if !has(t, s, "C", "P") {
		t.Error("a batch is lost")
	}
}

// A flood pushes out the flooder's own records only.
func TestStoreIsBounded(t *testing.T) {
	s := newRecordStore(20, 10)
	for i := range 5 {
		put(t, s, fmt.Sprint("good", i), "honest")
	}
	for i := range 1000 {
		put(t, s, fmt.Sprint("bad", i), "flooder")
	}
	if s.count != 15 || !has(t, s, "bad999", "flooder") || has(t, s, "bad989", "flooder") {
		t.Errorf("%d records, or not the newest", s.count)
	}
	for i := range 1000 {
		put(t, s, fmt.Sprint("worse", i), "second")
	}
	if s.count != 20 {
		t.Errorf("%d records", s.count)
	}
	for i := range 5 {
		if !has(t, s, fmt.Sprint("good", i), "honest") {
			t.Errorf("record %d of the honest one is gone", i)
		}
	}
	put(t, s, "good0", "honest") // renewed: now the newest
	if l := s.byPeer["honest"]; l.len != 5 || l.tail.key != "good0" || l.head.key != "good1" {
		t.Errorf("renewing: %d records, first %s, last %s", l.len, l.head.key, l.tail.key)
	}
	for _, e := range ask(t, s, "/providers/") {
		name, _, _ := strings.Cut(e, "=")
		key, peer, ok := splitName(name)
		if !ok {
			t.Fatalf("odd entry %s", e)
		}
		if err := s.Delete(t.Context(), recordKey(key, peer)); err != nil {
			t.Fatal(err)
		}
	}
	if s.count != 0 || len(s.byKey) != 0 || len(s.byPeer) != 0 {
		t.Errorf("left: %d, %d keys, %d peers", s.count, len(s.byKey), len(s.byPeer))
	}
}
