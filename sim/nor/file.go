package nor

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/gofrs/flock"
)

type unlocker interface{ Unlock() error }

// ErrInUse: another process has the flash file open.
var ErrInUse = errors.New("nor: flash file is in use by another process")

// Create makes a file of the chip's size, all erased. An existing file is refused.
func Create(path string, cfg Config) (*Chip, error) {
	c, err := New(cfg)
	if err != nil {
		return nil, err
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
	if st.Size() < 1<<20 || st.Size() > 128<<20 || st.Size()%65536 != 0 {
		return nil, fmt.Errorf("nor: %s has %d bytes: no whole flash chip of 1 to 128 MiB", path, st.Size())
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
	l := flock.New(path)
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

// store writes changed cells through to the file. Its error ends the operation.
func (c *Chip) store(off, n uint32) {
	if c.file == nil || c.diskErr != nil {
		return
	}
	if _, err := c.file.WriteAt(c.mem[off:off+n], int64(off)); err != nil {
		c.diskErr = fmt.Errorf("nor: %w", err)
	}
}

// Close closes a file-backed chip.
func (c *Chip) Close() error {
	if c.file == nil {
		return nil
	}
	err := errors.Join(c.diskErr, c.file.Sync(), c.lock.Unlock(), c.file.Close())
	c.file = nil
	return err
}
