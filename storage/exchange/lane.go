package exchange

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/shoal-os/shoal/dht/wire"
)

// A lane is a TCP connection for what one server sends on one session, beside the connection that libp2p multiplexes.
// There every byte is copied twice more and sealed 16 KiB at a time, which is what bounds a fast network. It is opened only
// on this machine or its LAN, where the network is that fast and nothing stands between, and only for much.
//
// Its address and key go over the session's stream, which is sealed and whose ends know each other. So a lane needs no
// handshake of its own, and there is none without a stream: who may have the stream may have the lane, and it ends with it.
const (
	laneMin    = 16 << 20        // bytes of a job for which a lane is worth its round trip
	laneWait   = 5 * time.Second // for it to be taken up
	laneTries  = 8               // connections that may come before the right one
	laneID     = 16              // bytes
	laneKey    = 32
	laneIDWait = time.Second // for a connection to say which lane it wants
)

// laneIP is the IP address of a direct TCP connection's end, nil if it is none.
func laneIP(a multiaddr.Multiaddr) net.IP {
	if a == nil {
		return nil
	}
	if p := a.Protocols(); len(p) != 2 || p[1].Code != multiaddr.P_TCP {
		return nil
	}
	ip, err := manet.ToIP(a)
	if err != nil {
		return nil
	}
	return ip
}

// offersLane reports whether this side would open a lane for the stream.
func (u *upload) offersLane() bool { return u.local && laneIP(u.st.Conn().LocalMultiaddr()) != nil }

// laneWanted has a lane opened, once.
func (u *upload) laneWanted() error {
	u.mu.Lock()
	asked := u.laneAsked
	u.laneAsked = true
	u.mu.Unlock()
	if asked || !u.offersLane() {
		return wire.Errorf(wire.Malformed, "asks for a lane that was not offered, or again")
	}
	u.swarm.tasks.Go(func() {
		if err := u.openLane(); err != nil {
			u.swarm.log.Debug("no lane", "peer", u.peer, "err", err)
		}
	})
	return nil
}

// openLane waits for the other side to take up a lane, and hands it to the writer. The address it listens on is the one
// by which the other side came, and nobody hears of the port but that side.
func (u *upload) openLane() error {
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: laneIP(u.st.Conn().LocalMultiaddr())})
	if err != nil {
		return fmt.Errorf("exchange: lane: %w", err)
	}
	stop := context.AfterFunc(u.ctx, func() { _ = l.Close() })
	defer stop()
	defer l.Close()
	_ = l.SetDeadline(time.Now().Add(laneWait))
	offer := &Lane{Port: uint32(l.Addr().(*net.TCPAddr).Port), Id: make([]byte, laneID), Key: make([]byte, laneKey)}
	rand.Read(offer.Id)
	rand.Read(offer.Key)
	s, err := newSealing(offer.Key)
	if err != nil {
		return err
	}
	u.mu.Lock()
	u.laneOffer = offer
	u.signal()
	u.mu.Unlock()
	for range laneTries {
		conn, err := l.AcceptTCP()
		if err != nil {
			return fmt.Errorf("exchange: lane: %w", err)
		}
		if !knocks(conn, offer.Id) {
			_ = conn.Close()
			continue
		}
		u.takeLane(&laneWriter{conn, s})
		return nil
	}
	return errors.New("exchange: lane: others knock")
}

// knocks reports whether a connection begins with a lane's id.
func knocks(conn *net.TCPConn, id []byte) bool {
	var got [laneID]byte
	_ = conn.SetReadDeadline(time.Now().Add(laneIDWait))
	_, err := io.ReadFull(conn, got[:])
	return err == nil && subtle.ConstantTimeCompare(got[:], id) == 1
}

// takeLane has the writer go on on a lane, unless it has ended.
func (u *upload) takeLane(w *laneWriter) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ctx.Err() != nil {
		_ = w.conn.Close()
		return
	}
	u.laneReady = w
	u.signal()
}

// appendLane appends the news of a lane. From the switch on, all is sent on it.
func (u *upload) appendLane(buf []byte) ([]byte, error) {
	u.mu.Lock()
	offer, ready := u.laneOffer, u.laneReady
	u.laneOffer, u.laneReady = nil, nil
	u.mu.Unlock()
	if offer != nil {
		buf = appendMessage(buf, frameLane, offer)
	}
	if ready == nil {
		return buf, nil
	}
	u.swarm.lanes.Add(1)
	err := u.send(appendHeader(buf, frameSwitch, 0))
	u.lane = ready // closed by endLanes, also after an error
	return buf[:0], err
}

// endLanes closes what there is of a lane. After a failure its end is not said.
func (u *upload) endLanes(failed bool) {
	u.cancel()
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.laneReady != nil {
		_ = u.laneReady.conn.Close()
	}
	switch {
	case u.lane == nil:
	case failed:
		_ = u.lane.conn.Close()
	default:
		_ = u.lane.end()
	}
}

// askLane asks a session's server for a lane, if much is to come and it is near.
func (j *job) askLane(s *session) {
	c := j.cands[s.peer]
	if !s.lanes || !s.local || j.total-j.present < laneMin || c == nil || c.laned || laneIP(s.st.Conn().RemoteMultiaddr()) == nil {
		return
	}
	c.laned = true
	s.laneAsked.Store(true)
	s.queue(appendHeader(nil, frameLaneAsk, 0))
}

// readLane takes up the lane that the server opened. What goes wrong with that costs nothing: the stream goes on.
func (s *session) readLane(n int) error {
	var m Lane
	if err := readMessage(s.br, n, &m); err != nil {
		return err
	}
	if !s.laneAsked.Swap(false) || m.Port == 0 || m.Port > 1<<16-1 || len(m.Id) != laneID || len(m.Key) != laneKey {
		return wire.Errorf(wire.Malformed, "a lane that nobody asked for, or none")
	}
	s.job.tasks.Go(func() {
		if err := s.dialLane(&m); err != nil {
			s.job.swarm.log.Debug("no lane", "peer", s.peer, "err", err)
		}
	})
	return nil
}

func (s *session) dialLane(m *Lane) error {
	to := &net.TCPAddr{IP: laneIP(s.st.Conn().RemoteMultiaddr()), Port: int(m.Port)}
	ctx, cancel := context.WithTimeout(s.job.ctx, laneWait)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", to.String())
	if err != nil {
		return err
	}
	r, err := newLaneReader(conn, m.Key)
	if err != nil {
		_ = conn.Close()
		return err
	}
	s.mu.Lock()
	select {
	case <-s.ended:
		err = context.Canceled
	default:
		s.lane, s.laneConn = r, conn
	}
	s.mu.Unlock()
	if err == nil {
		_ = conn.SetWriteDeadline(time.Now().Add(laneIDWait))
		_, err = conn.Write(m.Id)
	}
	if err != nil {
		_ = conn.Close()
	}
	return err
}

// switchLane goes on reading on the lane.
func (s *session) switchLane() error {
	s.mu.Lock()
	lane := s.lane
	s.mu.Unlock()
	if lane == nil || s.onLane || s.br.Buffered() > 0 {
		return wire.Errorf(wire.Malformed, "went over to a lane that is not there")
	}
	s.onLane = true
	s.job.swarm.lanes.Add(1)
	s.br.Reset(lane)
	return nil
}

// closeLane ends the lane with its session.
func (s *session) closeLane() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.laneConn != nil {
		_ = s.laneConn.Close()
	}
}
