package web

import (
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"github.com/shoal-os/shoal/storage"
)

// The types of the trustless forms.
const (
	typeRaw = "application/vnd.ipld.raw"
	typeCAR = "application/vnd.ipld.car"
)

var (
	errUnsupported = errors.New("not supported here")           // 406
	errRange       = errors.New("entity-bytes is out of range") // 400
)

// form is how a request wants to be answered.
type form struct {
	kind  formKind
	named bool // by ?format=
	scope storage.Scope
	given string // dag-scope as it was given
	bytes *storage.ByteRange
	dups  bool
}

type formKind uint8

const (
	formEntry formKind = iota // a file or a listing
	formRaw
	formCAR
)

// formOf reads the form from the query and the Accept header; ?format= wins.
func formOf(r *http.Request) (form, error) {
	q := r.URL.Query()
	var f form
	params := map[string]string{}
	accept, acceptParams, err := fromAccept(r.Header.Values("Accept"))
	if err != nil && !q.Has("format") {
		return f, err
	}
	switch format := q.Get("format"); {
	case format == "raw":
		f.kind, f.named = formRaw, true
	case format == "car":
		f.kind, f.named = formCAR, true
	case format != "":
		return f, fmt.Errorf("format %q is %w: raw and car are", clip(format), errUnsupported)
	default:
		f.kind = accept
	}
	if f.kind != formCAR {
		return f, nil
	}
	if accept == formCAR {
		params = acceptParams
	}
	for name, key := range map[string]string{"car-version": "version", "car-order": "order", "car-dups": "dups"} {
		if q.Has(name) {
			params[key] = q.Get(name)
		}
	}
	if err := f.applyParams(params); err != nil {
		return f, err
	}
	return f, f.applyScope(q.Get("dag-scope"), q.Get("entity-bytes"))
}

// fromAccept finds the first trustless type among what a client accepts. Types
// that are not of IPFS leave the choice to us; one of IPFS that is not known, with
// nothing beside it, is an error.
func fromAccept(headers []string) (formKind, map[string]string, error) {
	var unknown string
	other := false
	for part := range strings.SplitSeq(strings.Join(headers, ","), ",") {
		kind, params, err := mime.ParseMediaType(strings.TrimSpace(part))
		if err != nil {
			continue
		}
		switch {
		case kind == typeRaw:
			return formRaw, params, nil
		case kind == typeCAR:
			return formCAR, params, nil
		case strings.HasPrefix(kind, "application/vnd.ipld."), strings.HasPrefix(kind, "application/vnd.ipfs."):
			unknown = kind
		default:
			other = true
		}
	}
	if unknown != "" && !other {
		return formEntry, nil, fmt.Errorf("%s is %w: %s and %s are", clip(unknown), errUnsupported, typeRaw, typeCAR)
	}
	return formEntry, nil, nil
}

// applyParams takes the parameters of the CAR type (IPIP-412).
func (f *form) applyParams(p map[string]string) error {
	if v := p["version"]; v != "" && v != "1" {
		return fmt.Errorf("CAR version %q is %w: 1 is", clip(v), errUnsupported)
	}
	switch p["order"] {
	case "", "dfs", "unk":
	default:
		return fmt.Errorf("CAR order %q is %w: dfs is", clip(p["order"]), errUnsupported)
	}
	switch p["dups"] {
	case "", "n":
	case "y":
		f.dups = true
	default:
		return fmt.Errorf("CAR dups %q is %w: y and n are", clip(p["dups"]), errUnsupported)
	}
	return nil
}

// errScope is a value that makes no sense: 400.
type errScope struct{ name, value string }

func (e errScope) Error() string { return fmt.Sprintf("%s %q makes no sense", e.name, clip(e.value)) }

func (f *form) applyScope(scope, bytes string) error {
	if bytes != "" {
		r, ok := parseBytes(bytes)
		if !ok {
			return errScope{"entity-bytes", bytes}
		}
		f.bytes = r
		if scope == "" {
			scope = "entity"
		}
	}
	f.given = scope
	switch scope {
	case "", "all":
		f.scope = storage.ScopeAll
	case "entity":
		f.scope = storage.ScopeEntity
	case "block":
		f.scope = storage.ScopeBlock
	default:
		return errScope{"dag-scope", scope}
	}
	if f.bytes != nil {
		f.scope = storage.ScopeEntity // which it implies
	}
	return nil
}

// parseBytes reads from:to, where to may be * for the end.
func parseBytes(s string) (*storage.ByteRange, bool) {
	from, to, ok := strings.Cut(s, ":")
	if !ok {
		return nil, false
	}
	var r storage.ByteRange
	var err error
	if r.From, err = strconv.ParseInt(from, 10, 64); err != nil {
		return nil, false
	}
	if to == "*" {
		r.ToEnd = true
		return &r, true
	}
	if r.To, err = strconv.ParseInt(to, 10, 64); err != nil {
		return nil, false
	}
	return &r, r.From < 0 || r.To < 0 || r.From <= r.To
}

// failForm answers for a form that cannot be given.
func failForm(w http.ResponseWriter, err error) {
	status := http.StatusBadRequest
	if errors.Is(err, errUnsupported) {
		status = http.StatusNotAcceptable
	}
	fail(w, status, err.Error())
}

// clip keeps somebody else's text short.
func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}
