package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

const (
	// EndpointFile is the name of the file in a home that says where its
	// peer's API listens.
	EndpointFile = "api.json"
	// TokenHeader carries the endpoint's token, on TCP only.
	TokenHeader = "Shoal-Token"

	endpointBytesMax = 64 << 10
)

// Endpoint is where a peer's API listens: the content of home/api.json.
type Endpoint struct {
	Network string `json:"network"` // "unix" or "tcp"
	Address string `json:"address"` // socket path or host:port
	Token   string `json:"token,omitempty"`
	PID     int    `json:"pid"`
}

// String returns network:address.
func (e Endpoint) String() string { return e.Network + ":" + e.Address }

// Write puts the endpoint into home/api.json, readable by the owner alone.
// A reader sees the old file or the new one, never a part.
func (e Endpoint) Write(home string) error {
	data, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("api file: %w", err)
	}
	f, err := os.CreateTemp(home, EndpointFile+".*") // 0600 from the start
	if err != nil {
		return fmt.Errorf("api file: %w", err)
	}
	_, err = f.Write(append(data, '\n'))
	if err := errors.Join(err, f.Close()); err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("api file: %w", err)
	}
	if err := os.Rename(f.Name(), filepath.Join(home, EndpointFile)); err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("api file: %w", err)
	}
	return nil
}

// ReadEndpoint reads home/api.json. A missing file is [ErrNoPeer].
func ReadEndpoint(home string) (Endpoint, error) {
	path := filepath.Join(home, EndpointFile)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Endpoint{}, noPeer(home, err)
	}
	if err != nil {
		return Endpoint{}, Wrap(KindHome, fmt.Errorf("api file: %w", err), "choose another folder with --home or SHOAL_HOME")
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, endpointBytesMax))
	if err != nil {
		return Endpoint{}, fmt.Errorf("api file: %w", err)
	}
	var e Endpoint
	if err := json.Unmarshal(data, &e); err != nil || (e.Network != "unix" && e.Network != "tcp") {
		return Endpoint{}, Errorf(KindHome, "stop the peer if there is one and delete the file",
			"%s is not what a peer writes", path)
	}
	return e, nil
}

func noPeer(home string, cause error) error {
	return &Error{
		Kind:  KindNoPeer,
		Text:  "no peer is running on " + home,
		Hint:  "start one with `shoal up --detach`",
		cause: cause,
	}
}
