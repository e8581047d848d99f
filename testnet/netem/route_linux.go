package netem

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// addRoute lets the namespace of the calling thread send to a prefix by its device, without a gateway: one message of
// rtnetlink(7), RTM_NEWROUTE with a destination and an interface.
func addRoute(to netip.Prefix) error {
	device, err := net.InterfaceByName(deviceName)
	if err != nil {
		return fmt.Errorf("route: %w", err)
	}
	order := binary.NativeEndian
	msg := make([]byte, unix.SizeofNlMsghdr+unix.SizeofRtMsg, 64)
	rt := msg[unix.SizeofNlMsghdr:]
	rt[0], rt[1] = unix.AF_INET, byte(to.Bits())
	rt[4], rt[5], rt[6], rt[7] = unix.RT_TABLE_MAIN, unix.RTPROT_BOOT, unix.RT_SCOPE_LINK, unix.RTN_UNICAST
	attribute := func(kind uint16, value []byte) {
		msg = order.AppendUint16(msg, uint16(unix.SizeofRtAttr+len(value)))
		msg = order.AppendUint16(msg, kind)
		msg = append(msg, value...)
	}
	attribute(unix.RTA_DST, to.Masked().Addr().AsSlice())
	attribute(unix.RTA_OIF, order.AppendUint32(nil, uint32(device.Index)))
	order.PutUint32(msg, uint32(len(msg)))
	order.PutUint16(msg[4:], unix.RTM_NEWROUTE)
	order.PutUint16(msg[6:], unix.NLM_F_REQUEST|unix.NLM_F_ACK|unix.NLM_F_CREATE)

	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("route: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("route: %w", err)
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil || n < unix.SizeofNlMsghdr+4 {
		return fmt.Errorf("route: %d bytes of an answer: %w", n, err)
	}
	// The answer is NLMSG_ERROR, whose first field is the error's negative number, or zero.
	if code := int32(order.Uint32(answer[unix.SizeofNlMsghdr:])); code != 0 {
		return fmt.Errorf("route to %s: %w", to, unix.Errno(-code))
	}
	return nil
}
