package mount

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"path"
	"strings"
	"sync"
	"time"
)

const (
	locksMax     = 1024             // at a time
	lockTime     = 10 * time.Minute // for a client that does not say how long
	lockTimeMax  = time.Hour        // whatever a client asks for
	lockTimeLeft = time.Minute      // what a lock has left, at least, when a request that named it ends
)

var (
	errLocked   = errors.New("somebody else has locked it")
	errLocksMax = errors.New("too many locks")
)

// lock is one write lock (RFC 4918 section 6).
type lock struct {
	token   string // a URI
	root    string
	deep    bool // also on all below the root
	shared  bool
	owner   string // XML that stands on its own
	timeout time.Duration

	expires time.Time
	used    int // requests that run under it
}

// covers reports whether the lock protects what is at a path.
func (l *lock) covers(p string) bool { return l.root == p || l.deep && below(p, l.root) }

// below reports whether p lies under the folder at root.
func below(p, root string) bool {
	return root == "/" && p != "/" || len(p) > len(root) && p[len(root)] == '/' && strings.HasPrefix(p, root)
}

// parent is the folder that p lies in.
func parent(p string) string { return path.Dir(p) }

// lockTable holds the locks of a face. They are in memory: a client whose lock a restart has ended is told so by the
// next request that names it. With at most locksMax of them each question is a walk over all.
type lockTable struct {
	mu      sync.Mutex
	byToken map[string]*lock
}

func newLockTable() *lockTable { return &lockTable{byToken: make(map[string]*lock)} }

// expire drops the locks whose time is over. One that a running request goes by stays: a large PUT may take longer than
// its client's patience to refresh.
func (t *lockTable) expire(now time.Time) {
	for token, l := range t.byToken {
		if l.used == 0 && !now.Before(l.expires) {
			delete(t.byToken, token)
		}
	}
}

// create locks root, or returns errLocked with the lock that is in the way, or errLocksMax.
func (t *lockTable) create(now time.Time, want lock) (lock, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expire(now)
	for _, l := range t.byToken {
		if (l.covers(want.root) || want.covers(l.root)) && !(l.shared && want.shared) {
			return *l, errLocked
		}
	}
	if len(t.byToken) >= locksMax {
		return lock{}, errLocksMax
	}
	l := want
	l.token, l.timeout = newToken(), clampTimeout(want.timeout)
	l.expires = now.Add(l.timeout)
	t.byToken[l.token] = &l
	return l, nil
}

// newToken is a version 4 UUID as a URI (RFC 4918 section 6.5, RFC 9562).
func newToken() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	s := hex.EncodeToString(b[:])
	return "urn:uuid:" + s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}

func clampTimeout(d time.Duration) time.Duration {
	if d <= 0 {
		return lockTime
	}
	return min(d, lockTimeMax)
}

// refresh begins the time of a lock anew; ok is false if there is none with that token that covers p.
func (t *lockTable) refresh(now time.Time, token, p string, timeout time.Duration) (l lock, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expire(now)
	held := t.byToken[token]
	if held == nil || !held.covers(p) {
		return lock{}, false
	}
	held.timeout = clampTimeout(timeout)
	held.expires = now.Add(held.timeout)
	return *held, true
}

// remove ends a lock; it is false if there is none with that token that covers p.
func (t *lockTable) remove(now time.Time, token, p string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expire(now)
	l := t.byToken[token]
	if l == nil || !l.covers(p) {
		return false
	}
	delete(t.byToken, token)
	return true
}

// removeBelow ends the locks whose roots are gone: p and all below it.
func (t *lockTable) removeBelow(p string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for token, l := range t.byToken {
		if l.root == p || below(l.root, p) {
			delete(t.byToken, token)
		}
	}
}

// covering lists the locks that protect p.
func (t *lockTable) covering(now time.Time, p string) (out []lock) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expire(now)
	for _, l := range t.byToken {
		if l.covers(p) {
			out = append(out, *l)
		}
	}
	return out
}

// reach is how much of the tree a change touches.
type reach uint8

const (
	itself  reach = iota // what is at the path
	member               // also the list of its folder: something appears there or goes
	subtree              // also all below it
)

// claim is a change that somebody is about to make.
type claim struct {
	path  string
	reach reach
}

// use marks the locks that tokens name as in use, until release is called, if they allow the claims. If not, it returns
// the path that is locked against them.
func (t *lockTable) use(now time.Time, tokens map[string]bool, claims ...claim) (release func(), blocked string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expire(now)
	for _, c := range claims {
		if blocked = t.blocks(c, tokens); blocked != "" {
			return nil, blocked
		}
	}
	var held []*lock
	for token := range tokens {
		if l := t.byToken[token]; l != nil {
			l.used++
			held = append(held, l)
		}
	}
	return func() { t.release(held) }, ""
}

func (t *lockTable) release(held []*lock) {
	t.mu.Lock()
	defer t.mu.Unlock()
	least := time.Now().Add(lockTimeLeft)
	for _, l := range held {
		l.used--
		if l.expires.Before(least) {
			l.expires = least
		}
	}
}

// blocks returns the path of what a claim may not touch without another token, or "".
func (t *lockTable) blocks(c claim, tokens map[string]bool) string {
	if len(t.byToken) == 0 {
		return ""
	}
	if !t.open(c.path, tokens) {
		return c.path
	}
	// A lock on a folder keeps its list of members as well, even without depth (RFC 4918 section 7.4).
	if c.reach != itself && c.path != "/" && !t.open(parent(c.path), tokens) {
		return parent(c.path)
	}
	if c.reach == subtree {
		if !t.openBelow(c.path, tokens) {
			return c.path
		}
		for _, l := range t.byToken {
			if below(l.root, c.path) && !(t.open(l.root, tokens) && t.openBelow(l.root, tokens)) {
				return l.root
			}
		}
	}
	return ""
}

// open reports whether what is at p may be changed.
func (t *lockTable) open(p string, tokens map[string]bool) bool {
	return t.allows(tokens, func(l *lock) bool { return l.covers(p) })
}

// openBelow reports whether what lies below p, and has no locks of its own, may be changed: fewer may protect it than p.
func (t *lockTable) openBelow(p string, tokens map[string]bool) bool {
	return t.allows(tokens, func(l *lock) bool { return l.deep && l.covers(p) })
}

// allows reports whether there is no lock that protects, or one of the tokens is of such a one. Where there are several
// they are shared, and any of them will do.
func (t *lockTable) allows(tokens map[string]bool, protects func(*lock) bool) bool {
	locked := false
	for token, l := range t.byToken {
		if protects(l) {
			if tokens[token] {
				return true
			}
			locked = true
		}
	}
	return !locked
}
