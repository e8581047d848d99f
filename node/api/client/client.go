package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

const (
	dialTimeout    = 5 * time.Second
	answerBytesMax = 32 << 20 // an answer that is not a stream of events
)

// Client talks to the one peer that runs on a home. Its methods may be called
// from several goroutines; each request stops when its context does.
type Client struct {
	home     string
	endpoint Endpoint
	prefix   string // before every path: leads to another member's API
	http     *http.Client
}

// Open returns a client of the peer that runs on home. It does not connect:
// a peer that died without a trace shows as [ErrNoPeer] at the first request.
func Open(home string) (*Client, error) {
	e, err := ReadEndpoint(home)
	if err != nil {
		return nil, err
	}
	return New(home, e), nil
}

// New returns a client of the endpoint e; home is for error texts only.
func New(home string, e Endpoint) *Client {
	dialer := &net.Dialer{Timeout: dialTimeout}
	transport := &http.Transport{
		Proxy: nil, // a proxy from the environment must never see this
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, e.Network, e.Address)
		},
		MaxIdleConns:    4,
		IdleConnTimeout: 30 * time.Second,
	}
	return &Client{home: home, endpoint: e, http: &http.Client{Transport: transport}}
}

// At returns a client of another member's API, by way of this client's peer.
// member is a name, the beginning of one, or a peer id; what may be asked there
// is for that member to say. Closing either closes both.
func (c *Client) At(member string) *Client {
	at := *c
	at.prefix = "/v1/peers/" + url.PathEscape(member) + "/api"
	return &at
}

// Endpoint returns where the client connects to.
func (c *Client) Endpoint() Endpoint { return c.endpoint }

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Status returns the peer as it is now.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return call[Status](ctx, c, http.MethodGet, "/v1/status")
}

// ID returns who the peer is.
func (c *Client) ID(ctx context.Context) (Identity, error) {
	return call[Identity](ctx, c, http.MethodGet, "/v1/id")
}

// Shares returns everything the peer seeds.
func (c *Client) Shares(ctx context.Context) ([]Share, error) {
	list, err := call[ShareList](ctx, c, http.MethodGet, "/v1/shares")
	return list.Shares, err
}

// Unshare forgets a share, named by its root's CID. The files stay.
func (c *Client) Unshare(ctx context.Context, root string) error {
	_, err := call[struct{}](ctx, c, http.MethodDelete, "/v1/shares/"+url.PathEscape(root))
	return err
}

// Doctor runs the peer's checks of itself.
func (c *Client) Doctor(ctx context.Context) (Doctor, error) {
	return call[Doctor](ctx, c, http.MethodGet, "/v1/doctor")
}

// Down asks the peer to stop. It returns before the peer has.
func (c *Client) Down(ctx context.Context) (Stopping, error) {
	return call[Stopping](ctx, c, http.MethodPost, "/v1/down")
}

// Share indexes a path and seeds it, calling progress (which may be nil) from
// this goroutine. Cancelling ctx cancels the work.
func (c *Client) Share(ctx context.Context, req ShareRequest, progress func(Progress)) (Share, error) {
	return stream[Share](ctx, c, "/v1/share", req, progress)
}

// Get fetches a link, calling progress (which may be nil) from this goroutine.
// Cancelling ctx cancels the transfer; what was verified is kept for the next.
func (c *Client) Get(ctx context.Context, req GetRequest, progress func(Progress)) (GetResult, error) {
	return stream[GetResult](ctx, c, "/v1/get", req, progress)
}

// call makes a request without a body and decodes its answer.
func call[T any](ctx context.Context, c *Client, method, path string) (T, error) {
	return send[T](ctx, c, method, path, nil)
}

// encode is a request's body as JSON; nil stays nil.
func encode(body any) ([]byte, error) {
	if body == nil {
		return nil, nil
	}
	data, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("api: %w", err)
	}
	return data, nil
}

// send makes a request with a body, which may be nil, and decodes its answer.
func send[T any](ctx context.Context, c *Client, method, path string, body any) (T, error) {
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
	if resp.StatusCode == http.StatusNoContent {
		return out, nil
	}
	answer, err := io.ReadAll(io.LimitReader(resp.Body, answerBytesMax))
	if err != nil {
		return out, c.lost(ctx, err)
	}
	if err := json.Unmarshal(answer, &out); err != nil {
		return out, fmt.Errorf("api: %s: %w", path, err)
	}
	return out, nil
}

// do sends a request and turns an answer that is not a success into an error.
func (c *Client) do(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+c.host()+c.prefix+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("api: %w", err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return c.roundTrip(ctx, req)
}

// roundTrip is do for a request that is made already.
func (c *Client) roundTrip(ctx context.Context, req *http.Request) (*http.Response, error) {
	if c.endpoint.Token != "" {
		req.Header.Set(TokenHeader, c.endpoint.Token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	if resp.StatusCode >= 300 {
		defer resp.Body.Close()
		return nil, failure(resp)
	}
	return resp, nil
}

// host is what the Host header says: on TCP the address itself, which the
// server's allow-list knows.
func (c *Client) host() string {
	if c.endpoint.Network == "tcp" {
		return c.endpoint.Address
	}
	return "shoal"
}

// unreachable tells "nobody listens" from "went away" and from "you cancelled".
func (c *Client) unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return noPeer(c.home, err)
	}
	return c.lost(ctx, err)
}

func (c *Client) lost(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return &Error{Kind: KindLost, Text: "the peer went away before it answered", Hint: "see peer.log in " + c.home, cause: err}
}

// failure decodes the error that a response carries.
func failure(resp *http.Response) error {
	data, _ := io.ReadAll(io.LimitReader(resp.Body, eventBytesMax))
	var e Error
	if json.Unmarshal(data, &e) != nil || e.Text == "" {
		return Errorf(KindInternal, "", "the peer answered %s", resp.Status)
	}
	return &e
}
