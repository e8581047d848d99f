package api

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/shoal-os/shoal/node/api/client"
)

// statusOf is the one place where kinds of failure become HTTP statuses.
func statusOf(kind client.Kind) int {
	switch kind {
	case client.KindInvalid:
		return http.StatusBadRequest
	case client.KindRefused:
		return http.StatusForbidden
	case client.KindNotFound, client.KindMissing:
		return http.StatusNotFound
	case client.KindExists, client.KindBusy, client.KindChanged:
		return http.StatusConflict
	case client.KindPermission:
		return http.StatusUnprocessableEntity
	case client.KindCorrupt:
		return http.StatusBadGateway // the fault is the sender's, behind us
	case client.KindNoSpace:
		return http.StatusInsufficientStorage
	case client.KindStopping, client.KindUnready:
		return http.StatusServiceUnavailable
	default:
		return http.StatusInternalServerError
	}
}

// asError gives any error the shape that crosses the API.
func asError(err error) *client.Error {
	var e *client.Error
	switch {
	case errors.As(err, &e):
		return &client.Error{Kind: e.Kind, Text: err.Error(), Hint: e.Hint}
	case errors.Is(err, context.Canceled):
		// A caller who cancelled is not there to read this; whoever reads it
		// is cut off by the peer.
		return &client.Error{Kind: client.KindStopping, Text: "the peer is stopping"}
	case errors.Is(err, fs.ErrNotExist):
		return &client.Error{Kind: client.KindMissing, Text: err.Error()}
	case errors.Is(err, fs.ErrPermission):
		return &client.Error{Kind: client.KindPermission, Text: err.Error()}
	default:
		return &client.Error{Kind: client.KindInternal, Text: err.Error()}
	}
}

type shape = client.Error

// statusError is an error with its status, as huma wants it.
type statusError struct{ *shape }

func (e statusError) GetStatus() int { return statusOf(e.Kind) }

func fail(err error) error {
	if err == nil {
		return nil
	}
	return statusError{asError(err)}
}

// reshape turns the error documents that the framework itself writes (a body
// that does not validate, say) into the API's one shape.
func reshape(ctx huma.Context, _ string, v any) (any, error) {
	m, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	ctx.SetHeader("Content-Type", "application/json")
	texts := []string{m.Detail}
	for _, d := range m.Errors {
		texts = append(texts, strings.TrimSpace(d.Location+" "+d.Message))
	}
	kind := client.KindInvalid
	if m.Status >= 500 {
		kind = client.KindInternal
	}
	return &client.Error{Kind: kind, Text: strings.Join(texts, ": ")}, nil
}
