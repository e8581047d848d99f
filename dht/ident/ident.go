// Package ident owns who a peer is: its key, the peer id that follows from the key, and the friendly name that
// people see. It makes the key on first use and never replaces one, because a peer id that changes silently is
// a peer that its pool no longer knows.
//
// It refuses to know anything of the network, and to guess: a key file that cannot be read is an error with a
// hint, not a reason for a new identity.
package ident

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	keyFile  = "identity.key"
	nameFile = "name"

	homeMode = 0o700
	keyMode  = 0o600
	nameMode = 0o644

	// nameFileMax bounds what is read of the name file, in bytes; a name itself is at most NameMax.
	nameFileMax = 4 << 10
)

// Identity is one peer: the private key that proves it, the id derived from the key, and its friendly name.
// It is a plain value, safe to copy; the key is immutable.
type Identity struct {
	Key  crypto.PrivKey
	ID   peer.ID
	Name string
}

// LoadOrCreate returns the identity kept in the folder home, making the folder (0700) and an Ed25519 key (0600)
// on first use. Of several processes that make it at once, all return the same identity.
//
// name is stored as the peer's friendly name when it is not empty; otherwise the stored name is used, or else the
// host's. A key file that is there and cannot be used yields a *KeyError, and is left untouched.
func LoadOrCreate(home, name string) (Identity, error) {
	if home == "" {
		return Identity{}, errors.New("ident: no home folder was given")
	}
	if err := os.MkdirAll(home, homeMode); err != nil {
		return Identity{}, fmt.Errorf("ident: make home: %w", err)
	}
	key, err := loadOrCreateKey(filepath.Join(home, keyFile))
	if err != nil {
		return Identity{}, err
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return Identity{}, fmt.Errorf("ident: derive peer id: %w", err)
	}
	name, err = resolveName(filepath.Join(home, nameFile), name, id)
	if err != nil {
		return Identity{}, err
	}
	return Identity{Key: key, ID: id, Name: name}, nil
}

// resolveName picks the friendly name: the wanted one (which it stores), the stored one, the host's, and at last
// one made of the peer id, so that a name is never empty.
func resolveName(path, want string, id peer.ID) (string, error) {
	if want != "" {
		name := CleanName(want)
		if name == "" {
			return "", fmt.Errorf("ident: the name %q has no printable character", want)
		}
		return name, storeName(path, name)
	}
	data, err := readBounded(path, nameFileMax)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("ident: read name: %w", err)
	}
	if name := CleanName(string(data)); name != "" {
		return name, nil
	}
	if host, err := os.Hostname(); err == nil {
		if name := CleanName(host); name != "" {
			return name, nil
		}
	}
	s := id.String()
	return "peer-" + s[max(0, len(s)-6):], nil
}

// storeName writes the name unless it is already there: a peer that is always started with the same --name should
// not rewrite a file each time.
func storeName(path, name string) error {
	if old, err := readBounded(path, nameFileMax); err == nil && string(old) == name+"\n" {
		return nil
	}
	temp, err := writeTemp(path, []byte(name+"\n"), nameMode)
	if err != nil {
		return fmt.Errorf("ident: store name: %w", err)
	}
	if err := os.Rename(temp, path); err != nil {
		return errors.Join(fmt.Errorf("ident: store name: %w", err), os.Remove(temp))
	}
	return nil
}
