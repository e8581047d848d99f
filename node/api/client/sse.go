package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// eventBytesMax bounds one event, and so what a decoder ever holds.
const eventBytesMax = 1 << 20

// The names of the events of share and get.
const (
	EventProgress = "progress"
	EventDone     = "done"
	EventError    = "error"
)

// event is one server-sent event, in the syntax of
// https://html.spec.whatwg.org/multipage/server-sent-events.html; ids and retry
// times mean nothing here.
type event struct {
	Name string
	Data []byte
}

var errEventTooLong = errors.New("api: an event is longer than this client accepts")

// eventReader reads events, never holding more than one.
type eventReader struct {
	lines *bufio.Scanner
}

func newEventReader(r io.Reader) *eventReader {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 4<<10), eventBytesMax)
	return &eventReader{lines: s}
}

// next returns the next event, or io.EOF when the stream ended between two.
func (r *eventReader) next() (event, error) {
	var e event
	seen := false
	for r.lines.Scan() {
		line := r.lines.Bytes()
		if len(line) == 0 {
			if seen {
				return e, nil
			}
			continue
		}
		field, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(field) {
		case "event":
			e.Name, seen = string(value), true
		case "data":
			if len(e.Data)+len(value) > eventBytesMax {
				return event{}, errEventTooLong
			}
			if e.Data != nil {
				e.Data = append(e.Data, '\n')
			}
			e.Data, seen = append(e.Data, value...), true
		}
	}
	if err := r.lines.Err(); errors.Is(err, bufio.ErrTooLong) {
		return event{}, errEventTooLong
	} else if err != nil {
		return event{}, err
	}
	if seen {
		return event{}, io.ErrUnexpectedEOF // cut off inside an event
	}
	return event{}, io.EOF
}

// stream posts a request and follows its events up to the last.
func stream[T any](ctx context.Context, c *Client, path string, body any, progress func(Progress)) (T, error) {
	return follow(ctx, c, http.MethodPost, path, body, func(e event, out *T) (bool, error) { return handle(e, out, progress) })
}

// follow makes a request and passes its events on, until take is done or fails.
func follow[T any](ctx context.Context, c *Client, method, path string, body any, take func(event, *T) (done bool, err error)) (T, error) {
	var out T
	data, err := encode(body)
	if err != nil {
		return out, err
	}
	resp, err := c.do(ctx, method, path, data)
	if err != nil {
		return out, err
	}
	defer resp.Body.Close()
	events := newEventReader(resp.Body)
	for {
		e, err := events.next()
		if errors.Is(err, errEventTooLong) {
			return out, err
		}
		if err != nil {
			return out, c.lost(ctx, err)
		}
		done, err := take(e, &out)
		if done || err != nil {
			return out, err
		}
	}
}

// decode reads the data of an event.
func decode[T any](e event) (T, error) {
	var out T
	if err := json.Unmarshal(e.Data, &out); err != nil {
		return out, fmt.Errorf("api: %s event: %w", e.Name, err)
	}
	return out, nil
}

// handle acts on one event; done is true after the last. Events of names that
// this client does not know are for newer ones and are skipped.
func handle[T any](e event, out *T, progress func(Progress)) (done bool, err error) {
	switch e.Name {
	case EventProgress:
		var p Progress
		if err := json.Unmarshal(e.Data, &p); err != nil {
			return false, fmt.Errorf("api: progress event: %w", err)
		}
		if progress != nil {
			progress(p)
		}
		return false, nil
	case EventDone:
		if err := json.Unmarshal(e.Data, out); err != nil {
			return false, fmt.Errorf("api: done event: %w", err)
		}
		return true, nil
	case EventError:
		failed := new(Error)
		if err := json.Unmarshal(e.Data, failed); err != nil {
			return false, fmt.Errorf("api: error event: %w", err)
		}
		return true, failed
	default:
		return false, nil
	}
}
