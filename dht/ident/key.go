package ident

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/libp2p/go-libp2p/core/crypto"
)

// keyFileMax bounds the key file, in bytes. A marshalled Ed25519 key has 68.
const keyFileMax = 4 << 10

// KeyError says that the key file is there and cannot be used. Nothing was changed.
type KeyError struct {
	Path string
	Err  error
}

func (e *KeyError) Error() string {
	return fmt.Sprintf("ident: the key file %s cannot be used: %v", e.Path, e.Err)
}

// Unwrap returns the cause.
func (e *KeyError) Unwrap() error { return e.Err }

// Hint says what the owner can do next, as one sentence for the screen.
func (e *KeyError) Hint() string {
	return fmt.Sprintf("restore %s from a backup, or move it away to get a new identity (other peers will see a new peer)", e.Path)
}

// loadOrCreateKey reads the key, or makes it if there is none.
func loadOrCreateKey(path string) (crypto.PrivKey, error) {
	key, err := loadKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if err := createKey(path); err != nil {
		return nil, fmt.Errorf("ident: make key: %w", err)
	}
	// Whether this process made the file or another was first, what the file now says is the identity.
	return loadKey(path)
}

// loadKey reads and checks the key file. It returns an error that is fs.ErrNotExist when there is no file, and a
// *KeyError for everything else.
func loadKey(path string) (crypto.PrivKey, error) {
	data, err := readBounded(path, keyFileMax)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err != nil {
		return nil, &KeyError{Path: path, Err: err}
	}
	key, err := decodeKey(data)
	if err != nil {
		return nil, &KeyError{Path: path, Err: err}
	}
	if err := tighten(path); err != nil {
		return nil, &KeyError{Path: path, Err: err}
	}
	return key, nil
}

// decodeKey parses a key in libp2p's protobuf form and accepts Ed25519 only: it is the one kind whose public key
// fits in the peer id, so a signature can be checked without asking anyone for the key.
func decodeKey(data []byte) (crypto.PrivKey, error) {
	if len(data) == 0 {
		return nil, errors.New("it is empty")
	}
	key, err := crypto.UnmarshalPrivateKey(data)
	if err != nil {
		return nil, fmt.Errorf("it is damaged: %w", err)
	}
	if key.Type() != crypto.Ed25519 {
		return nil, fmt.Errorf("it holds a key of the kind %s, not Ed25519", key.Type())
	}
	if err := matches(key); err != nil {
		return nil, err
	}
	return key, nil
}

// matches checks that the public half stored in the key belongs to the private half. The file holds both, and
// one damaged byte in the public half would otherwise give a peer an id that it cannot prove.
func matches(key crypto.PrivKey) error {
	probe := []byte("shoal identity check")
	sig, err := key.Sign(probe)
	if err != nil {
		return fmt.Errorf("it is damaged: %w", err)
	}
	if ok, err := key.GetPublic().Verify(probe, sig); err != nil || !ok {
		return errors.New("it is damaged: its two halves do not belong together")
	}
	return nil
}

// createKey writes a new key to path unless a file appears there first, which is success too.
//
// A hard link is the one portable step that is both atomic and refuses to replace: the key appears under its name
// complete and synced, or not at all. File systems without links (FAT, some network shares) get a rename, whose
// only weakness is two first starts within the same few milliseconds.
func createKey(path string) error {
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return err
	}
	data, err := crypto.MarshalPrivateKey(key)
	if err != nil {
		return err
	}
	temp, err := writeTemp(path, data, keyMode)
	if err != nil {
		return err
	}
	err = os.Link(temp, path)
	if err == nil || errors.Is(err, fs.ErrExist) {
		return errors.Join(os.Remove(temp), syncDir(filepath.Dir(path)))
	}
	if _, statErr := os.Lstat(path); statErr == nil {
		return os.Remove(temp)
	}
	if err := os.Rename(temp, path); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return syncDir(filepath.Dir(path))
}

// writeTemp writes data to a fresh synced file beside path and returns its name.
func writeTemp(path string, data []byte, mode fs.FileMode) (name string, err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	return f.Name(), errors.Join(err, f.Close())
}

// readBounded reads a regular file of at most limit bytes.
func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read from, so a failing close loses nothing
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("it is not a regular file")
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("it is larger than %d bytes", limit)
	}
	return data, nil
}

// tighten takes the key away from other users of the machine, should a copy or a restore have opened it up.
// Windows has no such bits: the folder's access list rules there.
func tighten(path string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o077 == 0 {
		return nil
	}
	return os.Chmod(path, keyMode)
}

// syncDir makes a new directory entry survive a power cut. Windows cannot open a folder for this, and does not need it.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
