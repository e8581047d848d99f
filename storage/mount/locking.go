package mount

import (
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const ownerMax = 4 << 10 // bytes of what a lock says of its owner

// errLockInfo is a LOCK body that is well-formed and asks for nothing that there is.
var errLockInfo = errors.New("the lock that is asked for makes no sense")

// lock answers LOCK: a new lock, or with no body more time for one that the If header names. x/net/webdav's LockSystem
// knows no shared locks and its handler refuses them, so all of locking is ours.
func (f *face) lock(w http.ResponseWriter, r *http.Request, p string) error {
	body, err := readXML(r, xmlMax)
	if err != nil {
		return err
	}
	timeout := parseTimeout(r.Header.Get("Timeout"))
	if len(body) == 0 {
		return f.refresh(w, r, p, timeout)
	}
	want, err := parseLockInfo(body)
	if err != nil {
		return status(http.StatusBadRequest, "%v", err)
	}
	switch strings.ToLower(r.Header.Get("Depth")) {
	case "", "infinity":
		want.deep = true
	case "0":
	default:
		return status(http.StatusBadRequest, "Depth must be 0 or infinity")
	}
	want.root, want.timeout = p, timeout
	return f.newLock(w, r, want)
}

// newLock locks what is at a path. If nothing is, an empty file is put there (RFC 4918 section 7.3), since clients go on
// as though it were.
func (f *face) newLock(w http.ResponseWriter, r *http.Request, want lock) error {
	_, there, err := f.stat(r, want.root)
	if err != nil {
		return err
	}
	var claims []claim // whoever locks what is there changes nothing
	if !there {
		claims = append(claims, claim{want.root, member})
	}
	release, err := f.claim(r, want.root, claims...)
	if err != nil {
		return err
	}
	defer release()
	now := time.Now()
	got, err := f.locks.create(now, want)
	if errors.Is(err, errLocked) {
		return precondition(http.StatusLocked, "<D:no-conflicting-lock><D:href>"+escapeText(f.href(got.root, false))+
			"</D:href></D:no-conflicting-lock>", errLocked.Error())
	}
	if err != nil {
		return err
	}
	if !there {
		// Somebody may have put it there before the lock kept him out: that must not be emptied.
		if _, there, err = f.stat(r, want.root); err == nil && !there {
			err = f.putEmpty(r, want.root)
		}
		if err != nil {
			f.locks.remove(now, got.token, got.root)
			return err
		}
	}
	w.Header().Set("Lock-Token", "<"+got.token+">")
	code := http.StatusOK
	if !there {
		code = http.StatusCreated
	}
	f.sendLocks(w, code, []lock{got})
	return nil
}

func (f *face) putEmpty(r *http.Request, p string) error {
	if err := f.inFolder(r, p); err != nil {
		return err
	}
	_, err := f.files.Put(r.Context(), p, strings.NewReader(""), f.opt.Now())
	return putFailed(nil, err)
}

// refresh gives more time to the locks that the If header names.
func (f *face) refresh(w http.ResponseWriter, r *http.Request, p string, timeout time.Duration) error {
	tokens, code := f.ifHeader(r, p)
	if code != 0 {
		return status(code, "the If header cannot be read, or no list of it holds")
	}
	var refreshed []lock
	for token := range tokens {
		if l, ok := f.locks.refresh(time.Now(), token, p, timeout); ok {
			refreshed = append(refreshed, l)
		}
	}
	if len(tokens) == 0 {
		return status(http.StatusBadRequest, "LOCK without a body needs the token in the If header")
	}
	if len(refreshed) == 0 {
		return precondition(http.StatusPreconditionFailed, "<D:lock-token-matches-request-uri/>", "there is no such lock")
	}
	f.sendLocks(w, http.StatusOK, refreshed)
	return nil
}

// unlock ends a lock. Its token is all that it takes (RFC 4918 section 6.4: tokens are no secret, but unguessable).
func (f *face) unlock(w http.ResponseWriter, r *http.Request, p string) error {
	token, rest, ok := between(strings.TrimSpace(r.Header.Get("Lock-Token")), '<', '>')
	if !ok || rest != "" {
		return status(http.StatusBadRequest, "the Lock-Token header is missing or wrong")
	}
	if !f.locks.remove(time.Now(), token, p) {
		return precondition(http.StatusConflict, "<D:lock-token-matches-request-uri/>", "there is no such lock")
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// sendLocks answers LOCK.
func (f *face) sendLocks(w http.ResponseWriter, code int, locks []lock) {
	w.Header().Set("Content-Type", xmlType)
	w.WriteHeader(code)
	_, _ = io.WriteString(w, xmlHead+`<D:prop xmlns:D="DAV:"><D:lockdiscovery>`+f.activeLocks(time.Now(), locks)+
		`</D:lockdiscovery></D:prop>`)
}

// activeLocks is the content of a lockdiscovery property, for inside of xmlns:D="DAV:".
func (f *face) activeLocks(now time.Time, locks []lock) string {
	var b strings.Builder
	for _, l := range locks {
		scope, depth := "exclusive", "0"
		if l.shared {
			scope = "shared"
		}
		if l.deep {
			depth = "infinity"
		}
		left := max(1, int64(l.expires.Sub(now).Round(time.Second)/time.Second))
		b.WriteString("<D:activelock><D:locktype><D:write/></D:locktype><D:lockscope><D:" + scope + "/></D:lockscope><D:depth>" + depth + "</D:depth>")
		if l.owner != "" {
			b.WriteString("<D:owner>" + l.owner + "</D:owner>")
		}
		b.WriteString("<D:timeout>Second-" + strconv.FormatInt(left, 10) + "</D:timeout><D:locktoken><D:href>" + escapeText(l.token) +
			"</D:href></D:locktoken><D:lockroot><D:href>" + escapeText(f.href(l.root, false)) + "</D:href></D:lockroot></D:activelock>")
	}
	return b.String()
}

// supportedLocks is the content of a supportedlock property, for inside of xmlns:D="DAV:".
const supportedLocks = "<D:lockentry><D:lockscope><D:exclusive/></D:lockscope><D:locktype><D:write/></D:locktype></D:lockentry>" +
	"<D:lockentry><D:lockscope><D:shared/></D:lockscope><D:locktype><D:write/></D:locktype></D:lockentry>"

// parseLockInfo reads the body of a LOCK (RFC 4918 section 14.11).
func parseLockInfo(body []byte) (want lock, err error) {
	var info struct {
		XMLName xml.Name  `xml:"DAV: lockinfo"`
		Excl    *struct{} `xml:"DAV: lockscope>exclusive"`
		Shared  *struct{} `xml:"DAV: lockscope>shared"`
		Write   *struct{} `xml:"DAV: locktype>write"`
		Owner   content   `xml:"DAV: owner"`
	}
	if err := xml.Unmarshal(body, &info); err != nil {
		return lock{}, errLockInfo
	}
	if info.Write == nil || (info.Excl == nil) == (info.Shared == nil) || len(info.Owner) > ownerMax {
		return lock{}, errLockInfo
	}
	return lock{shared: info.Shared != nil, owner: string(info.Owner)}, nil
}

// parseTimeout reads a Timeout header: the first of its wishes that can be read. 0 is none.
func parseTimeout(s string) time.Duration {
	for wish := range strings.SplitSeq(s, ",") {
		wish = strings.ToLower(strings.TrimSpace(wish))
		if wish == "infinite" {
			return lockTimeMax
		}
		if seconds, ok := strings.CutPrefix(wish, "second-"); ok {
			if n, err := strconv.ParseUint(seconds, 10, 63); err == nil {
				return time.Duration(min(n, uint64(lockTimeMax/time.Second))) * time.Second
			}
		}
	}
	return 0
}
