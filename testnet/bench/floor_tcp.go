package main

import (
	"io"
	"net"
	"os"
)

// tcpReceive is the receiving side of the plain TCP copy: SHA-256 and disk, no encryption, no verification on the way.
func tcpReceive(a roleArgs, notices chan<- notice) error {
	conn, err := acceptOne(a.Listen, notices)
	if err != nil {
		return err
	}
	defer conn.Close()
	m := startMeter()
	n, sum, err := receive(conn, a.Out)
	if err != nil {
		return err
	}
	notices <- m.stop(result{Bytes: n, Files: 1, Sum: sum})
	return nil
}

// acceptOne listens on a free port of host, says where, and returns the first connection.
func acceptOne(host string, notices chan<- notice) (net.Conn, error) {
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return nil, err
	}
	defer l.Close()
	notices <- notice{Ready: l.Addr().String()}
	return l.Accept()
}

// tcpSend is the sending side. Go's copy from a file to a socket is sendfile: the bytes never enter the process.
func tcpSend(a roleArgs, notices chan<- notice) error {
	f, err := os.Open(a.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	conn, err := net.Dial("tcp", a.Addr)
	if err != nil {
		return err
	}
	m := startMeter()
	n, err := io.Copy(conn, f)
	if err != nil {
		return err
	}
	if err := conn.Close(); err != nil {
		return err
	}
	notices <- m.stop(result{Bytes: n, Files: 1})
	return nil
}
