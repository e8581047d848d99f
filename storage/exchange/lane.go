package exchange

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
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
//
// Between two processes of one machine the lane is open: its bytes never leave the kernel, and whoever can read them there
// can read the processes' memory too. Each end proves first that it is the one that the stream told of: the asker by the id,
// the server by the key. Then a file's bytes go from the page cache to the socket, and no processor touches them.
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

// oneMachine reports whether a connection joins two processes of this machine. One that a forwarder brought here from elsewhere
// may look so too; there the asker finds nobody at the lane's port, which is not forwarded.
func oneMachine(st network.Stream) bool {
	here, there := laneIP(st.Conn().LocalMultiaddr()), laneIP(st.Conn().RemoteMultiaddr())
	return here != nil && there != nil && here.IsLoopback() && there.IsLoopback()
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
	offer.Open = u.openLanes && oneMachine(u.st)
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
		w, err := newLaneWriter(conn, offer)
		if err != nil {
			_ = conn.Close()
			return err
		}
		u.takeLane(w)
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
	u.laneReady, u.laneConn = w, w.conn
	u.signal()
}

// cutLane breaks a lane off, whatever is under way on it.
func (u *upload) cutLane() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.laneConn != nil {
		_ = u.laneConn.Close()
	}
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
	ready := u.laneReady
	u.mu.Unlock() // what follows may wait for the other side
	if ready != nil {
		_ = ready.conn.Close()
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
	if !s.laneAsked.Swap(false) || m.Open && !s.takesOpen() || m.Port == 0 || m.Port > 1<<16-1 || len(m.Id) != laneID || len(m.Key) != laneKey {
		return wire.Errorf(wire.Malformed, "a lane that nobody asked for, or none")
	}
	s.job.tasks.Go(func() {
		if err := s.dialLane(&m); err != nil {
			s.job.swarm.log.Debug("no lane", "peer", s.peer, "err", err)
		}
	})
	return nil
}

// takesOpen reports whether this side takes up a lane that is not sealed.
func (s *session) takesOpen() bool { return !s.job.swarm.cfg.SealAll && oneMachine(s.st) }

func (s *session) dialLane(m *Lane) error {
	to := &net.TCPAddr{IP: laneIP(s.st.Conn().RemoteMultiaddr()), Port: int(m.Port)}
	ctx, cancel := context.WithTimeout(s.job.ctx, laneWait)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", to.String())
	if err != nil {
		return err
	}
	r, err := newLaneReader(conn, m)
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

// passMin is the size of a leaf, in bytes, from which on it is worth two system calls more to have the kernel pass it on.
const passMin = 64 << 10

// passes reports whether a leaf goes from its file to the lane without coming by here: on an open lane, if it is large, and
// need not be looked at on the way.
func (u *upload) passes(i int) bool {
	return u.lane != nil && u.lane.open != nil && !u.private && u.reader.Tree().Leaves[i].Size >= passMin
}

// passLeaf sends what is in buf, and then a leaf. From its header on a failure ends the session: its last byte is kept back
// until it is known that the file is still what was shared, so that nobody gets a leaf that is not.
func (u *upload) passLeaf(buf []byte, i int) ([]byte, error) {
	s, err := u.reader.Section(i)
	if err != nil {
		return u.appendGone(buf, i, err), nil
	}
	if err := u.swarm.up.limit.wait(u.swarm.ctx, int(s.Size), u.local); err != nil {
		return nil, wire.Errorf(wire.Closing, "shutting down")
	}
	buf = appendHeader(buf, frameLeaf, 4+int(s.Size))
	if err := u.send(binary.BigEndian.AppendUint32(buf, uint32(i))); err != nil {
		return nil, err
	}
	if err := s.CopyTo(u.lane.open); err != nil {
		return nil, fmt.Errorf("exchange: leaf %d: %w", i, err)
	}
	u.gave(int(s.Size))
	return buf[:0], nil
}

// gave accounts for bytes of leaves that were sent.
func (u *upload) gave(n int) {
	u.root.Uploaded.Add(int64(n))
	u.swarm.up.gave(u.peer, n)
	u.gaveAt.Store(time.Now().UnixNano())
}
