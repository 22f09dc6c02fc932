package nor

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"

	"github.com/gofrs/flock"
)

type unlocker interface{ Unlock() error }

// disk is what a chip needs of its file.
type disk interface {
	io.WriterAt
	Sync() error
	Close() error
}

// A flash file is a whole chip of these sizes: what ESP-IDF's tools know, and what
// a file cut short by a crash or a full disk rarely is.
const (
	minFile   = 1 << 20
	maxFile   = 128 << 20
	fileBlock = 65536
)

func checkFileSize(path string, size int64) error {
	if size < minFile || size > maxFile || size%fileBlock != 0 {
		return fmt.Errorf("nor: %s has %d bytes: no whole flash chip of 1 to 128 MiB", path, size)
	}
	return nil
}

// ErrInUse: another process has the flash file open.
var ErrInUse = errors.New("nor: flash file is in use by another process")

// Create makes a file of the chip's size, all erased. An existing file is refused.
func Create(path string, cfg Config) (*Chip, error) {
	c, err := New(cfg)
	if err != nil {
		return nil, err
	}
	if err := checkFileSize(path, int64(c.geo.Size)); err != nil {
		return nil, err // Open would refuse it
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, err
	}
	if err := c.attach(f, path); err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(path))
	}
	if _, err := f.WriteAt(c.mem, 0); err != nil {
		return nil, errors.Join(err, c.Close(), os.Remove(path))
	}
	return c, nil
}

// Open opens a flash file; its length is the chip's size. What was programmed
// since the last erase is taken from the content: everything that is not 0xFF.
func Open(path string, cfg Config) (*Chip, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	c, err := open(f, path, cfg)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return c, nil
}

func open(f *os.File, path string, cfg Config) (*Chip, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if err := checkFileSize(path, st.Size()); err != nil {
		return nil, err
	}
	cfg.Size = uint32(st.Size())
	c, err := New(cfg)
	if err != nil {
		return nil, err
	}
	if err := c.attach(f, path); err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(io.NewSectionReader(f, 0, st.Size()), c.mem); err != nil {
		return nil, errors.Join(err, c.lock.Unlock())
	}
	c.markUsed(0, c.geo.Size)
	return c, nil
}

// attach locks the file against a second process.
func (c *Chip) attach(f *os.File, path string) error {
	l := flock.New(lockPath(path))
	ok, err := l.TryLock()
	if err != nil {
		return fmt.Errorf("nor: lock %s: %w", path, err)
	}
	if !ok {
		return ErrInUse
	}
	c.file, c.lock = f, l
	return nil
}

// lockPath is the file that is locked: the flash file itself, by whatever name it
// is reached. A lock on Windows keeps other handles from the bytes it covers, this
// process's too, so there it is a file beside.
func lockPath(path string) string {
	if runtime.GOOS == "windows" {
		return path + ".lock"
	}
	return path
}

// store writes changed cells through to the file. Its error ends the operation.
func (c *Chip) store(off, n uint32) {
	if c.file == nil || c.diskErr != nil {
		return
	}
	if _, err := c.file.WriteAt(c.mem[off:off+n], int64(off)); err != nil {
		c.diskErr = fmt.Errorf("nor: %w", err)
	}
}

// errClosed: nothing would reach the file any more.
var errClosed = fmt.Errorf("nor: flash file: %w", os.ErrClosed)

// Close closes a file-backed chip. It can be read afterwards, and not changed.
func (c *Chip) Close() error {
	if c.file == nil {
		return nil
	}
	err := errors.Join(c.diskErr, c.file.Sync(), c.lock.Unlock(), c.file.Close())
	c.file, c.diskErr = nil, errClosed
	return err
}
