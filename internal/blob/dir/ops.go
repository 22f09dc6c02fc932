package dir

import (
	"io"
	"os"
	"runtime"
)

// ops are the steps at which a disk can fail. Tests fail each in turn.
type ops struct {
	create  func(dir string) (f file, path string, err error) // a new file, mode 0600
	rename  func(from, to string) error
	remove  func(path string) error
	syncDir func(path string) error          // makes the folder's entries durable
	free    func(path string) (int64, error) // bytes that this user may still take
}

// file is what a blob is written to. Seven methods because each is a step at
// which a disk can fail, but ReadAt, which staged bytes are read back with.
type file interface {
	io.Writer
	io.ReaderAt
	// Allocate takes room up to n bytes of the file, where the file system can.
	Allocate(n int64) error
	Truncate(n int64) error
	Chmod(mode os.FileMode) error
	Sync() error
	Close() error
}

// system is the real disk.
var system = ops{
	create: func(dir string) (file, string, error) {
		f, err := os.CreateTemp(dir, "put-*")
		if err != nil {
			return nil, "", err
		}
		return osFile{f}, f.Name(), nil
	},
	rename: os.Rename,
	remove: os.Remove,
	syncDir: func(path string) error {
		if runtime.GOOS == "windows" { // folders can't be synced there
			return nil
		}
		d, err := os.Open(path)
		if err != nil {
			return err
		}
		defer d.Close()
		return d.Sync()
	},
	free: freeBytes,
}

type osFile struct{ *os.File }

func (f osFile) Allocate(n int64) error { return allocate(f.File, n) }
