package mount

import (
	"encoding/xml"
	"errors"
	"maps"
	"net/http"
	"strings"
	"time"

	"golang.org/x/net/webdav"
)

// Patch implements [webdav.DeadPropsHolder]: PROPPATCH, all of it or nothing. Two properties are more than what is kept
// for a client: setting them sets the file's modification time.
func (p *propFile) Patch(patches []webdav.Proppatch) ([]webdav.Propstat, error) {
	set := maps.Clone(p.view.face.props.get(p.path))
	if set == nil {
		set = make(propSet)
	}
	var at time.Time
	for _, patch := range patches {
		for _, prop := range patch.Props {
			code := http.StatusOK
			switch {
			case protected(prop.XMLName):
				code = http.StatusForbidden
			case patch.Remove:
				delete(set, prop.XMLName)
			case prop.XMLName == propWinTime, prop.XMLName == propSeconds:
				var ok bool
				if at, ok = propTime(prop); !ok {
					code = http.StatusConflict
				}
			case forgettable(prop.XMLName):
			default:
				set[prop.XMLName] = prop
			}
			if code != http.StatusOK {
				return refused(patches, prop.XMLName, code), nil
			}
		}
	}
	return p.keep(patches, set, at)
}

// keep makes the outcome of a patch what is so.
func (p *propFile) keep(patches []webdav.Proppatch, set propSet, at time.Time) ([]webdav.Propstat, error) {
	face := p.view.face
	before := face.props.get(p.path)
	err := checkProps(set)
	if err == nil {
		err = face.props.set(p.path, set)
	}
	if err == nil && !at.IsZero() {
		err = face.files.SetModTime(p.view.ctx, p.path, at)
		if errors.Is(err, ErrIsFolder) {
			err = nil // as a local disk, whose folders' times change by themselves
		}
		if err != nil {
			_ = face.props.set(p.path, before) // which fitted
		}
	}
	switch {
	case errors.Is(err, errPropsFull):
		return statAll(patches, webdav.StatusInsufficientStorage), nil
	case err != nil:
		return statAll(patches, statusOf(err)), nil
	}
	return statAll(patches, http.StatusOK), nil
}

// forgettable are what Windows sets with each file that it writes, and gives up the copy if it may not: when a file was
// made and last read elsewhere. They are taken and not kept; tens of thousands of files would fill the store with them.
func forgettable(n xml.Name) bool {
	return n.Space == propWinTime.Space && (n.Local == "Win32CreationTime" || n.Local == "Win32LastAccessTime")
}

// protected are the live properties that x/net/webdav does not know to be.
func protected(n xml.Name) bool { return n == propFree || n == propUsed }

// propTime reads a time that a client wants a file to have.
func propTime(p webdav.Property) (time.Time, bool) {
	text := strings.TrimSpace(string(p.InnerXML))
	if p.XMLName == propSeconds {
		return secondsTime(text)
	}
	at, err := http.ParseTime(text)
	return at, err == nil
}

// refused is the answer to a patch that failed for one of its properties.
func refused(patches []webdav.Proppatch, culprit xml.Name, code int) []webdav.Propstat {
	bad := webdav.Propstat{Status: code}
	if code == http.StatusForbidden {
		bad.XMLError = `<D:cannot-modify-protected-property xmlns:D="DAV:"/>`
	}
	rest := webdav.Propstat{Status: webdav.StatusFailedDependency}
	for _, patch := range patches {
		for _, prop := range patch.Props {
			to := &rest
			if prop.XMLName == culprit {
				to = &bad
			}
			to.Props = append(to.Props, webdav.Property{XMLName: prop.XMLName})
		}
	}
	if len(rest.Props) == 0 {
		return []webdav.Propstat{bad}
	}
	return []webdav.Propstat{bad, rest}
}

// statAll gives one status to all that was asked for.
func statAll(patches []webdav.Proppatch, code int) []webdav.Propstat {
	out := webdav.Propstat{Status: code}
	for _, patch := range patches {
		for _, prop := range patch.Props {
			out.Props = append(out.Props, webdav.Property{XMLName: prop.XMLName})
		}
	}
	return []webdav.Propstat{out}
}
