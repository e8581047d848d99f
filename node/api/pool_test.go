package api

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"slices"
	"testing"

	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/node/api/client"
)

// fakePool is a peer's part in a pool that does what its test says.
func (*fake) Drill(context.Context) (client.Drill, error) { return client.Drill{Allowed: true}, nil }
func (*fake) DrillAsk(_ context.Context, by string) (client.Drill, error) {
	return client.Drill{By: by}, nil
}
func (*fake) DrillFall(_ context.Context, by string, _ client.DrillFall) (client.Drill, error) {
	return client.Drill{By: by}, nil
}
func (*fake) DrillStop(context.Context) (client.Drill, error) { return client.Drill{Stops: 1}, nil }

type fakePool struct {
	join     func(context.Context, client.JoinRequest, func(client.JoinQuestion) error) (client.Pool, error)
	answered chan client.PoolAnswer
	events   []client.PoolEvent
	dial     func(id string) (net.Conn, error)
}

func (f *fakePool) Pool(context.Context) (client.Pool, error) {
	return client.Pool{ID: "p", Members: []client.Member{{Name: "ada", Paths: []client.Path{}}}, Former: []client.Member{}}, nil
}
func (f *fakePool) PoolEvents(ctx context.Context, after uint64, _ bool, each func(client.PoolEvent) error) error {
	for _, e := range f.events {
		if e.Seq > after {
			if err := each(e); err != nil {
				return err
			}
		}
	}
	<-ctx.Done()
	return nil
}
func (f *fakePool) Join(ctx context.Context, r client.JoinRequest, ask func(client.JoinQuestion) error) (client.Pool, error) {
	return f.join(ctx, r, ask)
}
func (f *fakePool) Leave(context.Context, client.LeaveRequest) (client.Pool, error) {
	return client.Pool{}, client.Errorf(client.KindRefused, "", "the last admin")
}
func (f *fakePool) Answer(_ context.Context, a client.PoolAnswer) error {
	f.answered <- a
	return nil
}
func (f *fakePool) Invite(_ context.Context, r client.InviteRequest) (client.Invitation, error) {
	return client.Invitation{Ticket: "t", Role: r.Role}, nil
}
func (f *fakePool) Evict(_ context.Context, r client.MemberRequest) (client.Member, error) {
	return client.Member{Name: r.Peer}, nil
}
func (f *fakePool) Promote(_ context.Context, r client.MemberRequest) (client.Member, error) {
	return client.Member{Name: r.Peer}, nil
}
func (f *fakePool) Find(_ context.Context, member string) (string, bool, error) {
	if member == "nobody" {
		return "", false, client.Errorf(client.KindNotFound, "", "there is no member nobody")
	}
	return "12D3KooW" + member, member == "self", nil
}
func (f *fakePool) Dial(_ context.Context, id string) (net.Conn, error) { return f.dial(id) }

func TestJoinAsksInTheMiddle(t *testing.T) {
	f := &fake{fakePool: fakePool{answered: make(chan client.PoolAnswer, 1)}}
	f.join = func(_ context.Context, r client.JoinRequest, ask func(client.JoinQuestion) error) (client.Pool, error) {
		if err := ask(client.JoinQuestion{Token: "x", Words: "a b c d"}); err != nil {
			return client.Pool{}, err
		}
		if a := <-f.answered; a.Token != "x" || !a.Accept {
			return client.Pool{}, client.Errorf(client.KindRefused, "", "declined")
		}
		return client.Pool{ID: r.Ticket}, nil
	}
	_, c := serve(t, f, NetworkUnix)
	for _, yes := range []bool{true, false} {
		pool, err := c.Join(t.Context(), client.JoinRequest{Ticket: "t"}, func(q client.JoinQuestion) (bool, error) {
			if q.Words != "a b c d" {
				t.Errorf("words %q", q.Words)
			}
			return yes, nil
		})
		if yes && (err != nil || pool.ID != "t") || !yes && client.KindOf(err) != client.KindRefused {
			t.Errorf("answered %t: %+v, %v", yes, pool, err)
		}
	}
	broken := errors.New("the terminal is gone")
	if _, err := c.Join(t.Context(), client.JoinRequest{Ticket: "t"}, func(client.JoinQuestion) (bool, error) { return false, broken }); !errors.Is(err, broken) {
		t.Errorf("a question that could not be asked: %v", err)
	}
	f.answered <- client.PoolAnswer{} // the join that nobody follows any more ends
}

func TestPoolEventsFollow(t *testing.T) {
	_, c := serve(t, &fake{fakePool: fakePool{events: []client.PoolEvent{{Seq: 1}, {Seq: 2, Kind: "joined"}, {Seq: 3}}}}, NetworkUnix)
	enough := errors.New("enough")
	var seen []uint64
	err := c.PoolEvents(t.Context(), 1, false, func(e client.PoolEvent) error {
		seen = append(seen, e.Seq)
		if len(seen) == 2 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) || !slices.Equal(seen, []uint64{2, 3}) {
		t.Errorf("saw %v: %v", seen, err)
	}
}

// twoPeers returns a client of one peer from which others can be reached; role is what it is there.
func twoPeers(t *testing.T, there *fake, role RoleOf) *client.Client {
	t.Helper()
	m := ServeMembers(there)
	t.Cleanup(func() {
		if err := m.Shut(); err != nil {
			t.Error(err)
		}
	})
	_, c := serve(t, &fake{fakePool: fakePool{dial: func(string) (net.Conn, error) {
		near, far := net.Pipe()
		m.Handle(far, role)
		return near, nil
	}}}, NetworkUnix)
	return c
}

// TestMembersMayWhatTheirRoleAllows asks everything that there is, in every role.
func TestMembersMayWhatTheirRoleAllows(t *testing.T) {
	data, err := os.ReadFile("openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Paths map[string]map[string]struct {
			OperationID string `json:"operationId"`
		} `json:"paths"`
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, role := range []ident.Role{ident.RoleNone, ident.RoleTerminal, ident.RoleMember, ident.RoleAdmin} {
		m := ServeMembers(&fake{})
		for path, methods := range doc.Paths {
			for method, op := range methods {
				known[op.OperationID] = true
				least, open := remoteRoles[op.OperationID]
				if open && role >= least && role != ident.RoleNone {
					continue // what is allowed is another test's: here it would do something
				}
				req, err := http.NewRequestWithContext(t.Context(), httpMethod(method), "http://shoal"+path, nil)
				if err != nil {
					t.Fatal(err)
				}
				resp, err := over(m, role).RoundTrip(req)
				if err != nil {
					t.Fatalf("%s: %v", op.OperationID, err)
				}
				resp.Body.Close()
				if resp.StatusCode != http.StatusForbidden {
					t.Errorf("%s as %s: %s", op.OperationID, role, resp.Status)
				}
			}
		}
		if err := m.Shut(); err != nil {
			t.Error(err)
		}
	}
	for op := range remoteRoles {
		if !known[op] {
			t.Errorf("remoteRoles names %q, which is no operation", op)
		}
	}
}

func httpMethod(lower string) string {
	return map[string]string{"get": http.MethodGet, "post": http.MethodPost, "delete": http.MethodDelete, "put": http.MethodPut}[lower]
}

// over is a transport to m by one who has a role.
func over(m *Members, role ident.Role) *http.Transport {
	return &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) {
		near, far := net.Pipe()
		m.Handle(far, func() ident.Role { return role })
		return near, nil
	}}
}

func TestAnotherMembersAPI(t *testing.T) {
	role := ident.RoleTerminal
	there := &fake{stopped: make(chan struct{}), unshare: func(string) error { return nil }}
	there.events = []client.PoolEvent{{Seq: 7}}
	c := twoPeers(t, there, func() ident.Role { return role })
	far := c.At("bob")
	if s, err := far.Status(t.Context()); err != nil || s.Name != "ada" {
		t.Errorf("status: %+v, %v", s, err)
	}
	if _, err := far.Doctor(t.Context()); client.KindOf(err) != client.KindInternal || err.Error() != "out of order" {
		t.Errorf("an error of the other side: %v", err)
	}
	for what, err := range map[string]error{
		"down as a terminal":    second(far.Down(t.Context())),
		"unshare as a terminal": far.Unshare(t.Context(), "x"),
		"get":                   second(far.Get(t.Context(), client.GetRequest{Link: "x", Dest: "/x"}, nil)),
	} {
		if client.KindOf(err) != client.KindRefused {
			t.Errorf("%s: %v", what, err)
		}
	}
	role = ident.RoleAdmin // the very connection that is kept open has the new role
	if err := far.Unshare(t.Context(), "x"); err != nil {
		t.Errorf("unshare as an admin: %v", err)
	}
	enough := errors.New("enough")
	if err := far.PoolEvents(t.Context(), 0, false, func(client.PoolEvent) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("events of the other side: %v", err)
	}
	if _, err := c.At("nobody").Status(t.Context()); client.KindOf(err) != client.KindNotFound {
		t.Errorf("nobody: %v", err)
	}
	if s, err := c.At("self").Status(t.Context()); err != nil || s.Name != "ada" {
		t.Errorf("itself: %+v, %v", s, err)
	}
	if _, err := far.Down(t.Context()); err != nil {
		t.Errorf("down as an admin: %v", err)
	}
	<-there.stopped
}

func TestNothingIsPassedOnForMembers(t *testing.T) {
	m := ServeMembers(&fake{})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://shoal/v1/peers/cy/api/v1/status", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := over(m, ident.RoleAdmin).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden {
		t.Error(resp.Status)
	}
	if err := m.Shut(); err != nil {
		t.Error(err)
	}
}

func second[T any](_ T, err error) error { return err }
