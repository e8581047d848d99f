package loopback

import (
	"slices"
	"testing"
)

func TestCheck(t *testing.T) {
	for addr, good := range map[string]bool{
		"127.0.0.1:0": true, "[::1]:80": true, "localhost:0": true, "127.1.2.3:1": true, "0.0.0.0:80": false, "192.168.1.2:80": false,
		":80": false, "example.org:80": false, "127.0.0.1": false, "[::1%lo]:80": false, "localhost.example.org:80": false, "": false,
	} {
		if err := Check(addr); (err == nil) != good {
			t.Errorf("%s: %v", addr, err)
		}
		if _, err := Hosts(addr); (err == nil) != good {
			t.Errorf("hosts of %s: %v", addr, err)
		}
	}
}

func TestHosts(t *testing.T) {
	for addr, want := range map[string][]string{
		"127.0.0.1:8080": {"127.0.0.1:8080", "localhost:8080"},
		"[::1]:80":       {"[::1]:80", "localhost:80", "[::1]", "localhost"},
	} {
		if got, err := Hosts(addr); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %q, %v", addr, got, err)
		}
	}
}
