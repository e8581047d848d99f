package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
)

// readLines reads an answer of one JSON value a line, each of at most so many bytes. One with an "error" ends it, one with
// "end" is the last.
func readLines[T any](ctx context.Context, c *Client, path string, most int, each func(T) error) error {
	resp, err := c.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(make([]byte, 0, 4<<10), most)
	for lines.Scan() {
		if ended, err := lastLine(lines.Bytes()); ended || err != nil {
			return err
		}
		var value T
		if err := json.Unmarshal(lines.Bytes(), &value); err != nil {
			return fmt.Errorf("api: %s: %w", path, err)
		}
		if err := each(value); err != nil {
			return err
		}
	}
	return c.lost(ctx, errors.Join(lines.Err(), errors.New("the answer was cut off")))
}

// lastLine tells the line that ends an answer from the others, by how it begins: there may be a hundred thousand of those.
func lastLine(line []byte) (ended bool, err error) {
	if !bytes.HasPrefix(line, []byte(`{"e`)) {
		return false, nil
	}
	var last struct {
		Error *Error `json:"error"`
		End   bool   `json:"end"`
	}
	if err := json.Unmarshal(line, &last); err != nil {
		return true, fmt.Errorf("api: the end of a listing: %w", err)
	}
	if last.Error != nil {
		return true, last.Error
	}
	return last.End, nil
}
