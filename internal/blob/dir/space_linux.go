package dir

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// allocate takes the blocks now, so that a disk that fills up meanwhile fails
// here and not in the middle of an image.
func allocate(f *os.File, n int64) error {
	if n == 0 {
		return nil // fallocate refuses it
	}
	for {
		err := unix.Fallocate(int(f.Fd()), 0, 0, n)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
			return nil // the file system can't: writing will tell
		}
		return err
	}
}
