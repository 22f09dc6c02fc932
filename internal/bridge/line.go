package bridge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"
	"time"
)

// Line is where a board's serial line is to be found: a device file, or a socket that
// an emulator has.
type Line struct {
	Name string // as it was given
	Baud int    // bits a second, of a device file

	network string // "unix", "tcp"; "": a device file
	address string
	listen  bool
}

// DefaultBaud is what most boards start with.
const DefaultBaud = 115200

// ErrLine: the line is none, and waiting does not help.
var ErrLine = errors.New("not a serial line")

// ParseLine reads DEV, unix:PATH or tcp:HOST:PORT. With listen, which sockets alone can
// do, the board connects; on TCP from this machine only, because whoever connects is a
// board.
func ParseLine(name string, baud int, listen bool) (*Line, error) {
	l := &Line{Name: name, Baud: baud, address: name, listen: listen}
	if baud < 50 || baud > 4_000_000 {
		return nil, fmt.Errorf("%d is no baud rate", baud)
	}
	for _, n := range []string{"unix", "tcp"} {
		if rest, ok := strings.CutPrefix(name, n+":"); ok {
			l.network, l.address = n, rest
		}
	}
	switch l.network {
	case "":
		if listen {
			return nil, errors.New("nobody connects to a device file: listen on unix:PATH or tcp:HOST:PORT")
		}
	case "tcp":
		host, port, err := net.SplitHostPort(l.address)
		if err == nil {
			_, err = net.LookupPort("tcp", port)
		}
		if err != nil || host == "" {
			return nil, fmt.Errorf("%q is not tcp:HOST:PORT", name)
		}
		if ip := net.ParseIP(host); listen && host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return nil, errors.New("it listens on this machine's own addresses only, such as tcp:127.0.0.1:5555: whoever connects is taken for a board")
		}
	}
	if l.address == "" {
		return nil, fmt.Errorf("%q names no line", name)
	}
	return l, nil
}

// Listens says that the board connects.
func (l *Line) Listens() bool { return l.listen }

// Source gives lines, one after the other.
type Source struct {
	line *Line
	l    net.Listener
}

// Start begins to listen, where the line is one that listens.
func (l *Line) Start() (*Source, error) {
	s := &Source{line: l}
	if !l.listen {
		return s, nil
	}
	if l.network == "unix" {
		if err := removeStale(l.address); err != nil {
			return nil, err
		}
	}
	var err error
	s.l, err = net.Listen(l.network, l.address)
	return s, err
}

// removeStale removes a socket that a process which was killed left behind.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSocket == 0 {
		return fmt.Errorf("%s is there, and is no socket", path)
	}
	if c, err := net.Dial("unix", path); err == nil {
		return errors.Join(fmt.Errorf("%s is in use", path), c.Close())
	}
	return os.Remove(path)
}

// Addr is where it listens, "" where it does not.
func (s *Source) Addr() string {
	if s.l == nil {
		return ""
	}
	return s.l.Addr().String()
}

// Close ends listening.
func (s *Source) Close() error {
	if s.l == nil {
		return nil
	}
	return s.l.Close()
}

// retryEvery is how often a line that is not there is looked for.
const retryEvery = 250 * time.Millisecond

// Next waits for a line: a board that connects, or one to connect to. waiting is told
// why there is none yet, each time that it is another reason. ErrLine and what the
// system does not allow end the waiting.
func (s *Source) Next(ctx context.Context, waiting func(why error)) (io.ReadWriteCloser, error) {
	if s.l != nil {
		stop := context.AfterFunc(ctx, func() { _ = s.l.Close() })
		defer stop()
		c, err := s.l.Accept()
		if ctx.Err() != nil {
			return nil, errors.Join(ctx.Err(), closeIf(c))
		}
		return c, err
	}
	told := ""
	for {
		rw, err := s.line.open(ctx)
		if err == nil || ctx.Err() != nil {
			return rw, err
		}
		if errors.Is(err, ErrLine) || errors.Is(err, fs.ErrPermission) {
			return nil, err
		}
		if err.Error() != told {
			told = err.Error()
			waiting(err)
		}
		t := time.NewTimer(retryEvery)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil, ctx.Err()
		}
	}
}

func closeIf(c net.Conn) error {
	if c == nil {
		return nil
	}
	return c.Close()
}

func (l *Line) open(ctx context.Context) (io.ReadWriteCloser, error) {
	if l.network == "" {
		return openTTY(l.address, l.Baud)
	}
	d := net.Dialer{Timeout: 10 * time.Second}
	c, err := d.DialContext(ctx, l.network, l.address)
	if err != nil {
		return nil, err // and not c, which in an interface would not be nil
	}
	return c, nil
}
