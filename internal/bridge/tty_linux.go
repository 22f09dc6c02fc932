//go:build linux && !ppc64 && !ppc64le

package bridge

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// openTTY opens a serial device for this process alone: raw, 8 bits, no parity, one
// stop bit, no flow control, at any rate that its hardware can make.
func openTTY(path string, baud int) (io.ReadWriteCloser, error) {
	// Not blocking: opening must not wait for a carrier, and closing ends a read.
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	if err := setRaw(fd, uint32(baud)); err != nil {
		if errors.Is(err, unix.ENOTTY) {
			err = ErrLine
		}
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), path), nil
}

func setRaw(fd int, baud uint32) error {
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS2)
	if err != nil {
		return err
	}
	// Two programs on one line would each take half of what comes.
	if err := unix.IoctlSetInt(fd, unix.TIOCEXCL, 0); err != nil {
		return err
	}
	t.Iflag, t.Oflag, t.Lflag = 0, 0, 0
	t.Cflag = unix.CS8 | unix.CREAD | unix.CLOCAL | unix.BOTHER
	t.Ispeed, t.Ospeed = baud, baud
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(fd, unix.TCSETS2, t); err != nil {
		return err
	}
	// What came before the line was set up is noise.
	return unix.IoctlSetInt(fd, unix.TCFLSH, unix.TCIFLUSH)
}
