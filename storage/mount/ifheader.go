package mount

import (
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Bounds of an If header.
const (
	ifLenMax   = 16 << 10
	ifPartsMax = 256 // conditions
)

// condition is one test of an If header (RFC 4918 section 10.4): that a resource has a lock with a token, or an ETag.
type condition struct {
	not   bool
	token string
	etag  string // with its quotes; used if token is ""
}

// stateList holds if all its conditions do. They are about the resource that tag names, or the request's own if it is "".
type stateList struct {
	tag   string
	conds []condition
}

// parseIf reads an If header; ok is false if it is not one.
func parseIf(s string) (lists []stateList, ok bool) {
	if len(s) > ifLenMax {
		return nil, false
	}
	tag, tagged, parts := "", false, 0
	for s = skipSpace(s); s != ""; s = skipSpace(s) {
		switch {
		case s[0] == '<' && (tagged || len(lists) == 0):
			if tagged && (len(lists) == 0 || lists[len(lists)-1].tag != tag) {
				return nil, false // the tag before has no list
			}
			if tag, s, ok = between(s, '<', '>'); !ok || tag == "" {
				return nil, false
			}
			tagged = true
		case s[0] == '(':
			list := stateList{tag: tag}
			if list.conds, s, ok = parseList(s[1:]); !ok {
				return nil, false
			}
			if parts += len(list.conds); parts > ifPartsMax {
				return nil, false
			}
			lists = append(lists, list)
		default:
			return nil, false
		}
	}
	if len(lists) == 0 || lists[len(lists)-1].tag != tag {
		return nil, false
	}
	return lists, true
}

// parseList reads conditions up to the closing bracket.
func parseList(s string) (conds []condition, rest string, ok bool) {
	for {
		s = skipSpace(s)
		if s == "" || len(conds) > ifPartsMax {
			return nil, "", false
		}
		if s[0] == ')' {
			return conds, s[1:], len(conds) > 0
		}
		var c condition
		if len(s) > 3 && strings.EqualFold(s[:3], "not") {
			c.not, s = true, skipSpace(s[3:])
		}
		switch {
		case strings.HasPrefix(s, "<"):
			c.token, s, ok = between(s, '<', '>')
			ok = ok && c.token != ""
		case strings.HasPrefix(s, "["):
			c.etag, s, ok = between(s, '[', ']')
			ok = ok && c.etag != ""
		default:
			ok = false
		}
		if !ok {
			return nil, "", false
		}
		conds = append(conds, c)
	}
}

// between takes what stands between two marks at the head of s.
func between(s string, from, to byte) (inner, rest string, ok bool) {
	end := strings.IndexByte(s, to)
	if s == "" || s[0] != from || end < 0 {
		return "", "", false
	}
	return s[1:end], s[end+1:], true
}

func skipSpace(s string) string { return strings.TrimLeft(s, " \t") }

// ifHeader evaluates a request's If header. tokens are all that it names, which count as submitted whether or not their
// list holds; status is 0 if there is no header or one of its lists holds.
func (f *face) ifHeader(r *http.Request, p string) (tokens map[string]bool, status int) {
	values := r.Header.Values("If")
	if len(values) == 0 {
		return nil, 0
	}
	lists, ok := parseIf(strings.Join(values, " "))
	if !ok {
		return nil, http.StatusBadRequest
	}
	tokens = make(map[string]bool)
	status = http.StatusPreconditionFailed
	for _, list := range lists {
		for _, c := range list.conds {
			if c.token != "" {
				tokens[c.token] = true
			}
		}
		at, known := p, true
		if list.tag != "" {
			at, known = f.tagged(r, list.tag)
		}
		if status != 0 && f.holds(r, at, known, list.conds) {
			status = 0
		}
	}
	return tokens, status
}

// tagged finds the path that a resource tag names; known is false if it is not one of this face.
func (f *face) tagged(r *http.Request, tag string) (p string, known bool) {
	u, err := url.Parse(tag)
	if err != nil || u.Host != "" && !strings.EqualFold(u.Host, r.Host) {
		return "", false
	}
	p, known = f.locate(u)
	return p, known
}

// holds evaluates one list. A resource that is not of this face, or not there, has neither locks nor an ETag.
func (f *face) holds(r *http.Request, p string, known bool, conds []condition) bool {
	var locks []lock
	var etag string
	if known {
		locks = f.locks.covering(time.Now(), p)
		if info, err := f.files.Stat(r.Context(), p); err == nil {
			etag = etagOf(info)
		}
	}
	for _, c := range conds {
		match := c.token == "" && etag != "" && c.etag == etag
		for _, l := range locks {
			match = match || c.token == l.token
		}
		if match == c.not {
			return false
		}
	}
	return true
}
