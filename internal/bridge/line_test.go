package bridge

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/core/wire/serial"
)

func TestParseLine(t *testing.T) {
	for _, c := range []struct {
		name   string
		baud   int
		listen bool
		good   bool
	}{
		{"/dev/ttyUSB0", 115200, false, true},
		{"COM3", 9600, false, true},
		{"unix:board.sock", 115200, false, true},
		{"unix:board.sock", 115200, true, true},
		{"tcp:example.com:5555", 115200, false, true},
		{"tcp:127.0.0.1:0", 115200, true, true},
		{"tcp:[::1]:0", 115200, true, true},
		{"tcp:localhost:5555", 115200, true, true},
		{"", 115200, false, false},
		{"unix:", 115200, false, false},
		{"/dev/ttyUSB0", 115200, true, false},
		{"/dev/ttyUSB0", 0, false, false},
		{"/dev/ttyUSB0", 5_000_000, false, false},
		{"tcp:5555", 115200, false, false},
		{"tcp::5555", 115200, true, false},
		{"tcp:0.0.0.0:5555", 115200, true, false},
		{"tcp:192.168.1.1:5555", 115200, true, false},
		{"tcp:example.com:5555", 115200, true, false},
		{"tcp:127.0.0.1:x", 115200, false, false},
	} {
		if l, err := ParseLine(c.name, c.baud, c.listen); (err == nil) != c.good || err == nil && l.Listens() != c.listen {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func source(t *testing.T, name string, listen bool) *Source {
	t.Helper()
	l, err := ParseLine(name, DefaultBaud, listen)
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// TestLinesComeAndGo: boards that connect one after the other, and a line that is
// waited for until it is there.
func TestLinesComeAndGo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	s := source(t, "unix:"+path, true)
	for range 2 {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		rw, err := s.Next(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- Serve(t.Context(), rw, Options{}) }()
		board := &serial.Client{Port: newPort(c)}
		if board.Time() == 0 {
			t.Error(board.Fault)
		}
		c.Close()
		if err := <-done; !errors.Is(err, io.EOF) {
			t.Error(err)
		}
	}
	if _, err := (&Line{network: "unix", address: path, listen: true}).Start(); err == nil {
		t.Error("two bridges listen on one socket")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// The other way round: nobody is there when the bridge looks first.
	s = source(t, "unix:"+path, false)
	var l net.Listener
	rw, err := s.Next(t.Context(), func(error) {
		var err error
		if l, err = net.Listen("unix", path); err != nil {
			t.Error(err)
		}
	})
	if err != nil || l == nil {
		t.Fatal(l, err)
	}
	defer l.Close()
	defer rw.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Next(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestStaleSocket: what a killed bridge left behind is in nobody's way; a file is.
func TestStaleSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	source(t, "unix:"+path, true).Close()
	if err := os.WriteFile(path, []byte("work of years"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := (&Line{network: "unix", address: path, listen: true}).Start(); err == nil {
		t.Error("it listens on a file")
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, []byte("work of years")) {
		t.Error("the file is gone")
	}
}

// TestNoLine: a file that is no serial device is not waited for.
func TestNoLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := source(t, path, false).Next(t.Context(), nil); !errors.Is(err, ErrLine) {
		t.Errorf("a plain file: %v", err)
	}
}

// call has a board on a line ask for something whose bytes a line discipline would
// change, were the line not raw.
func call(t *testing.T, rw io.ReadWriteCloser, boardsEnd io.ReadWriter) {
	t.Helper()
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	var got []byte
	fetch := func(_ context.Context, r *device.Request) (Answer, error) {
		got = bytes.Clone(r.Body)
		return &reply{head: device.Head{Status: 200}, pieces: []string{string(all)}}, nil
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, rw, Options{Fetch: fetch}) }()
	board := &serial.Client{Port: newPort(boardsEnd)}
	var h serial.Head
	if !board.Send(&serial.Request{Target: []byte("/r1/poll"), Body: all}, &h) {
		t.Fatal(board.Fault)
	}
	if text, ok := body(board); !ok || text != string(all) || !bytes.Equal(got, all) {
		t.Errorf("bytes were changed on the way: %x, %x", got, text)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
