// Package datadir is the server's folder on disk: what lies where, who may read
// it, and that one server at a time uses it.
//
//	lock         held while a server runs; empty, never removed
//	runnel.db    SQLite, with runnel.db-wal and runnel.db-shm while in use
//	blobs/       images by digest
//	cache/       copies of those that are in a bucket: may be removed while no server runs
//	secret.key   seals the device keys in runnel.db; not for backups beside it
//	admin.token  the operator's token of the first start
//
// The two secrets are 64 hex digits or one token, and a newline, mode 0600. The
// package knows nothing of what is in the database or the blobs.
package datadir

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"github.com/runnel-fota/runnel/internal/fleet"
)

const (
	lockName     = "lock"
	databaseName = "runnel.db"
	blobsName    = "blobs"
	cacheName    = "cache"
	secretName   = "secret.key"
	tokenName    = "admin.token"
	movedSuffix  = ".moved"

	dirMode    = 0o700
	secretMode = 0o600
	// maxSecretFile bounds what is read of a secret's file: whatever is longer is none of ours.
	maxSecretFile = 1024 // bytes
)

// Dir is an open data folder. Close gives it free for another server.
type Dir struct {
	path  string
	lock  *flock.Flock
	first bool
}

// Open makes the folder if need be, locks it and removes what a crash left
// half-written. CodeConflict where another server has it.
func Open(path string) (*Dir, error) {
	d, err := lockAt(path)
	if err != nil {
		return nil, err
	}
	if err := d.RemoveUnfinished(); err != nil {
		return nil, errors.Join(fmt.Errorf("data folder: %w", err), d.Close())
	}
	return d, nil
}

func lockAt(path string) (*Dir, error) {
	if path == "" {
		return nil, &fleet.Error{Code: fleet.CodeInvalid, Message: "the data folder has no name", Hint: "name one with --data"}
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("data folder: %w", err)
	}
	if err := makeDir(path, syncDir); err != nil {
		return nil, &fleet.Error{Code: fleet.CodeInvalid, Message: "the data folder can't be made", Err: err,
			Hint: "name a folder that this user may write to with --data"}
	}
	d := &Dir{path: path, lock: flock.New(filepath.Join(path, lockName), flock.SetPermissions(secretMode))}
	got, err := d.lock.TryLock()
	if err != nil {
		return nil, &fleet.Error{Code: fleet.CodeInvalid, Message: "the data folder can't be locked", Err: err,
			Hint: "it must be on a file system with locks, and this user must be allowed to write to it"}
	}
	if !got {
		return nil, &fleet.Error{Code: fleet.CodeConflict, Message: fmt.Sprintf("another server uses the data folder %s", path),
			Hint: "stop it, or name another folder with --data"}
	}
	// A database of no bytes is what a crash leaves before the first write.
	st, err := os.Stat(d.Database())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		d.first = true
	case err != nil:
		d.Close()
		return nil, fmt.Errorf("data folder: %w", err)
	default:
		d.first = st.Size() == 0
	}
	return d, nil
}

// Close gives the lock back.
func (d *Dir) Close() error { return d.lock.Close() }

// FirstStart: there was no database when the folder was opened.
func (d *Dir) FirstStart() bool { return d.first }

// Path is the folder's, absolute.
func (d *Dir) Path() string { return d.path }

// Database is the path of the SQLite file.
func (d *Dir) Database() string { return filepath.Join(d.path, databaseName) }

// PutAway gives the database, which nobody has open, a name that no server starts on, and
// answers it.
func (d *Dir) PutAway() (string, error) {
	if err := d.CanPutAway(); err != nil {
		return "", err
	}
	to := d.Database() + movedSuffix
	if err := os.Rename(d.Database(), to); err != nil {
		return "", err
	}
	return to, syncDir(d.path)
}

// CanPutAway answers CodeConflict where PutAway would overwrite the database of an earlier move.
func (d *Dir) CanPutAway() error {
	to := d.Database() + movedSuffix
	if _, err := os.Lstat(to); err == nil {
		return &fleet.Error{Code: fleet.CodeConflict, Message: to + " is there already", Hint: "it is from an earlier move: put it elsewhere"}
	}
	return nil
}

// Blobs is the path of the blobs' folder.
func (d *Dir) Blobs() string { return filepath.Join(d.path, blobsName) }

// Cache is the path of the folder for copies of blobs that are elsewhere.
func (d *Dir) Cache() string { return filepath.Join(d.path, cacheName) }

// TokenFile is the path of the file that the first start wrote the operator's token to.
func (d *Dir) TokenFile() string { return filepath.Join(d.path, tokenName) }

// Secret is what seals the keys in the database. The first start makes it, from
// random. A database without it is refused: a new one would make every key that
// is stored unreadable, and that later.
func (d *Dir) Secret(random io.Reader) (secret [32]byte, err error) {
	path := filepath.Join(d.path, secretName)
	if !d.first {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return secret, &fleet.Error{Code: fleet.CodeInvalid, Message: "the data folder has a database and no " + secretName,
				Hint: "bring the file back from where you keep it: the device keys can't be read without it"}
		}
	}
	return SecretFile(path, d.first, random)
}

// SecretFile reads a secret that is kept by itself, and makes it if it is not there and
// may be made. CodeNotFound where it is not there.
func SecretFile(path string, mayMake bool, random io.Reader) (secret [32]byte, err error) {
	text, err := readSecret(path)
	if errors.Is(err, fs.ErrNotExist) {
		if !mayMake {
			return secret, &fleet.Error{Code: fleet.CodeNotFound, Message: "there is no " + path,
				Hint: "bring the file that the database was made with: the device keys can't be read without it"}
		}
		if _, err := io.ReadFull(random, secret[:]); err != nil {
			return secret, fmt.Errorf("make %s: %w", secretName, err)
		}
		err := makeFile(path, hex.EncodeToString(secret[:])+"\n")
		if errors.Is(err, fs.ErrExist) {
			return SecretFile(path, false, random) // another server made it just now
		}
		if errors.Is(err, fs.ErrNotExist) {
			err = &fleet.Error{Code: fleet.CodeInvalid, Message: "there is no folder " + filepath.Dir(path), Hint: "make it, readable by this user alone"}
		}
		return secret, err
	}
	if err != nil {
		return secret, err
	}
	if len(text) != 2*len(secret) {
		return secret, fleet.Errorf(fleet.CodeInvalid, "%s holds %d characters, not 64 hex digits", path, len(text))
	}
	if _, err := hex.Decode(secret[:], []byte(text)); err != nil {
		return [32]byte{}, fleet.Errorf(fleet.CodeInvalid, "%s does not hold 64 hex digits", path)
	}
	return secret, nil
}

// EnsureToken makes the first operator's token where there is none in force, and
// returns its text; "" where there is one. The text is in TokenFile before its
// hash is in the database: a crash between the two leaves a token that does not
// work and that the next start replaces, never one that works and nobody knows.
func (d *Dir) EnsureToken(ctx context.Context, tokens fleet.Tokens, random io.Reader, now time.Time) (string, error) {
	return EnsureTokenAt(ctx, d.TokenFile(), tokens, random, now)
}

// TokenFileBeside is where a server without a data folder keeps the first token: beside its secret.
func TokenFileBeside(secret string) string { return filepath.Join(filepath.Dir(secret), tokenName) }

// EnsureTokenAt is EnsureToken with the file named.
func EnsureTokenAt(ctx context.Context, file string, tokens fleet.Tokens, random io.Reader, now time.Time) (string, error) {
	known, err := tokens.ListTokens(ctx)
	if err != nil {
		return "", err
	}
	for _, t := range known {
		if t.RevokedAt.IsZero() {
			return "", nil
		}
	}
	token, err := fleet.NewToken(random)
	if err != nil {
		return "", err
	}
	if err := writeFile(file, token+"\n"); err != nil {
		return "", err
	}
	if _, err := tokens.AddToken(ctx, "admin", token, now); err != nil {
		return "", err
	}
	return token, nil
}

// readSecret refuses a file that others may read.
func readSecret(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return "", err
	}
	if mode := st.Mode().Perm(); runtime.GOOS != "windows" && mode&0o077 != 0 {
		return "", &fleet.Error{Code: fleet.CodeInvalid, Message: fmt.Sprintf("%s has mode %04o: others may read it", path, mode),
			Hint: "chmod 600 " + path}
	}
	b, err := io.ReadAll(io.LimitReader(f, maxSecretFile))
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(b)), nil
}

// writeFile replaces a file as a whole: after a crash there is the old one or
// the new one.
func writeFile(path, text string) error { return write(path, text, os.Rename) }

// makeFile makes a file as a whole, or answers fs.ErrExist.
func makeFile(path, text string) error {
	return write(path, text, func(from, to string) error { return errors.Join(os.Link(from, to), os.Remove(from)) })
}

func write(path, text string, name func(from, to string) error) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+"-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if _, err = f.WriteString(text); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	if err = name(f.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

// makeDir makes a folder with those above it, each durable: a power loss must not
// take the folder with what was acknowledged in it.
func makeDir(path string, sync func(string) error) error {
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		return nil
	}
	above := filepath.Dir(path)
	if above != path {
		if err := makeDir(above, sync); err != nil {
			return err
		}
	}
	if err := os.Mkdir(path, dirMode); err != nil {
		// Another start of the server may have been faster: the lock decides between them.
		if st, e := os.Stat(path); e != nil || !st.IsDir() {
			return err
		}
	}
	return sync(above)
}

// syncDir makes the folder's entries durable: without it a rename may be lost.
func syncDir(path string) error {
	if runtime.GOOS == "windows" { // folders can't be synced there
		return nil
	}
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
