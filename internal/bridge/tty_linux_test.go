package bridge

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/runnel-fota/runnel/internal/testenv"
)

// TestTTY: a terminal of this system stands for a serial device. It is set up raw, at
// the rate that was asked for, and for one program alone.
func TestTTY(t *testing.T) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		testenv.Missing(t, fmt.Sprintf("no terminals here: %v", err))
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	board := os.NewFile(uintptr(fd), "board")
	defer board.Close()
	name := fmt.Sprintf("/dev/pts/%d", n)
	l, err := ParseLine(name, 250_000, false) // a rate that POSIX has no name for
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Start()
	if err != nil {
		t.Fatal(err)
	}
	rw, err := s.Next(t.Context(), func(why error) { t.Error(why) })
	if err != nil {
		t.Fatal(err)
	}
	set, err := unix.IoctlGetTermios(fd, unix.TCGETS2)
	if err != nil {
		t.Fatal(err)
	}
	if set.Ospeed != 250_000 || set.Lflag != 0 || set.Iflag != 0 || set.Oflag != 0 || set.Cflag&unix.CSIZE != unix.CS8 || set.Cflag&(unix.PARENB|unix.CSTOPB|unix.CRTSCTS) != 0 {
		t.Errorf("set up as %+v", set)
	}
	if os.Geteuid() != 0 { // TIOCEXCL does not keep root away
		if other, err := os.OpenFile(name, os.O_RDWR|unix.O_NOCTTY, 0); !errors.Is(err, unix.EBUSY) {
			t.Errorf("a second program has the line: %v, %v", other, err)
		}
	}
	call(t, rw, board)
}
