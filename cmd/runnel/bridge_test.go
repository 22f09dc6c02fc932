package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/core/wire/serial"
	"github.com/runnel-fota/runnel/sim/board"
)

// socketPort is a board's UART at a socket, over as many connections as come. Without
// one, what is put is gone, as on a line that is not plugged in.
type socketPort struct {
	dial  func() (net.Conn, error) // nil: the bridge connects
	comes chan net.Conn
	heard chan heardBytes
	c     net.Conn
	in    []byte
	out   []byte
}

type heardBytes struct {
	c    net.Conn
	p    []byte
	gone bool
}

func newSocketPort() *socketPort {
	return &socketPort{comes: make(chan net.Conn, 4), heard: make(chan heardBytes, 64)}
}

// use takes a new connection, in place of one that may be there.
func (p *socketPort) use(c net.Conn) {
	p.unplug()
	p.c = c
	go func() {
		for {
			buf := make([]byte, 2048)
			n, err := c.Read(buf)
			p.heard <- heardBytes{c, buf[:n], err != nil}
			if err != nil {
				return
			}
		}
	}()
}

func (p *socketPort) unplug() {
	if p.c != nil {
		p.c.Close()
	}
	p.c, p.in, p.out = nil, nil, nil
}

func (p *socketPort) Put(b byte) { p.out = append(p.out, b) }

func (p *socketPort) Get(ms uint32) (byte, bool) {
	if p.c == nil && p.dial != nil {
		if c, err := p.dial(); err == nil {
			out := p.out
			p.use(c)
			p.out = out
		}
	}
	if len(p.out) > 0 {
		if p.c != nil {
			// A line that is gone answers nothing: the board sees no more of it.
			_, _ = p.c.Write(p.out)
		}
		p.out = p.out[:0]
	}
	timer := time.NewTimer(time.Duration(ms) * time.Millisecond)
	defer timer.Stop()
	for len(p.in) == 0 {
		select {
		case c := <-p.comes:
			p.use(c)
		case h := <-p.heard:
			if h.c != p.c {
				break
			}
			if p.in = h.p; h.gone {
				p.c = nil
			}
		case <-timer.C:
			return 0, false
		}
	}
	b := p.in[0]
	p.in = p.in[1:]
	return b, true
}

// bridgeProcess is the program, and what it has said.
type bridgeProcess struct {
	cmd  *exec.Cmd
	done chan struct{} // its output ended
	mu   sync.Mutex
	said []bridgeEvent
	log  bytes.Buffer
}

func startBridge(t *testing.T, bin string, ready string, args ...string) *bridgeProcess {
	t.Helper()
	p := &bridgeProcess{cmd: exec.Command(bin, append([]string{"bridge", "--json"}, args...)...), done: make(chan struct{})}
	p.cmd.Stderr = &p.log
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.cmd.Process.Kill(); p.cmd.Wait() })
	is := make(chan struct{})
	go func(is chan struct{}) {
		defer close(p.done)
		sc := bufio.NewScanner(out)
		for sc.Scan() {
			var e bridgeEvent
			if err := json.Unmarshal(sc.Bytes(), &e); err != nil {
				t.Errorf("%q: %v", sc.Text(), err)
			}
			p.mu.Lock()
			p.said = append(p.said, e)
			p.mu.Unlock()
			if e.Event == ready && is != nil {
				close(is)
				is = nil
			}
		}
	}(is)
	select {
	case <-is:
	case <-p.done:
		t.Fatalf("the bridge ended before it was %s: %s", ready, &p.log)
	}
	return p
}

// kill ends it as a power cut would.
func (p *bridgeProcess) kill(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-p.done
}

func (p *bridgeProcess) events() (names []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.said {
		names = append(names, e.Event)
	}
	return names
}

// TestBridge: the program, a real server, and a board that has a socket for a line.
// The bridge is killed in the middle of the update, and the board loses its power.
func TestBridge(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("SKIPPED, NOT TESTED: no SIGTERM here")
	}
	bin := buildRunnel(t)
	server := startServer(t, bin, t.TempDir())
	f := newLineFleet(t, server.url, server.token)
	for _, listens := range []bool{false, true} {
		id := "connects"
		if listens {
			id = "listens"
		}
		t.Run(id, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "s")
			port := newSocketPort()
			defer port.unplug()
			args, ready := []string{"--serial", "unix:" + path, "--server", server.url}, "connected"
			if listens {
				port.dial = func() (net.Conn, error) { return net.Dial("unix", path) }
				args, ready = append(args, "--listen"), "listening"
			} else {
				l, err := net.Listen("unix", path)
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				go func() {
					for {
						c, err := l.Accept()
						if err != nil {
							return
						}
						port.comes <- c
					}
				}()
			}
			bridge := startBridge(t, bin, ready, args...)
			first := bridge
			throughBridge(t, f, id, port, func() {
				bridge.kill(t)
				bridge = startBridge(t, bin, ready, args...)
			})
			if err := bridge.cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			<-bridge.done
			if err := bridge.cmd.Wait(); err != nil {
				t.Errorf("SIGTERM: %v, %s", err, &bridge.log)
			}
			for _, p := range []*bridgeProcess{first, bridge} {
				for _, want := range []string{"connected", "session", "request", "board"} {
					if names := p.events(); !slices.Contains(names, want) {
						t.Errorf("no event %s: %v", want, names)
					}
				}
			}
			if names := bridge.events(); names[len(names)-1] != "stopped" || listens && !slices.Contains(names, "gone") {
				t.Errorf("the last bridge said %v", names)
			}
		})
	}
}

// throughBridge updates a board over the port; a third of it done, kill is called, and
// at two thirds the power goes.
func throughBridge(t *testing.T, f *lineFleet, id string, port *socketPort, kill func()) {
	t.Helper()
	b, n := f.board(t, id)
	c := &serial.Client{Port: port, Wait: 200}
	app := board.App{Transport: overSerial{c}, Clock: &jumpClock{}, Native: n}
	var running board.Boot
	killed, cut, done := false, false, false
	app.OnStart = func(_ *device.Updater, at board.Boot) {
		running = at
		*c = serial.Client{Port: port, Wait: 200, Nonce: c.Nonce}
	}
	app.OnEvent = func(e device.Event) {
		c.Say(uint8(e.Kind), uint8(e.Reason), uint8(e.Slot), e.Bytes)
		size := uint32(len(f.newImage))
		switch {
		case e.Kind == device.EventConfirmed:
			done = true
		case e.Kind == device.EventChunk && !killed && e.Bytes > size/3:
			killed = true
			kill()
		case e.Kind == device.EventChunk && !cut && e.Bytes > 2*size/3:
			cut = true
			b.Chip.CutPower()
		}
	}
	asked := 0
	app.Stop = func() bool {
		if asked++; asked > 1_000_000 {
			t.Fatal("no end")
		}
		return done
	}
	err := b.Run(t.Context(), boot.ResetPowerOn, app)
	if !errors.Is(err, board.ErrPowerCut) {
		t.Fatalf("the power was to be cut: %v", err)
	}
	if port.dial != nil {
		port.unplug() // the line goes with the board; where the board listens, an emulator keeps it
	}
	b.Chip.PowerOn()
	if err := b.Run(t.Context(), boot.ResetPowerOn, app); err != nil {
		t.Fatal(err)
	}
	if !killed || !cut || running.Running != 1 || !holds(t, b, running, f.newImage) {
		t.Errorf("killed %v, cut %v, slot %d runs", killed, cut, running.Running)
	}
}

// overSerial is a board's transport over a line.
type overSerial struct{ c *serial.Client }

func (o overSerial) Do(_ context.Context, r device.Request) (board.Answer, error) {
	return serialDo(o.c, &r)
}

// TestBridgeRefusals: wrong calls, with a hint and their exit status.
func TestBridgeRefusals(t *testing.T) {
	t.Setenv("RUNNEL_SERVER", "")
	const server = "http://127.0.0.1:1"
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--server", server}, exitUsage, "--serial is missing"},
		{[]string{"--serial", "unix:s"}, exitUsage, "--server is missing"},
		{[]string{"--serial", "unix:s", "--server", "nonsense"}, exitUsage, "not a server's URL"},
		{[]string{"--serial", "tcp:5555", "--server", server}, exitUsage, "not tcp:HOST:PORT"},
		{[]string{"--serial", "tcp:0.0.0.0:5555", "--listen", "--server", server}, exitUsage, "this machine's own addresses"},
		{[]string{"--serial", "/dev/null", "--listen", "--server", server}, exitUsage, "listen on unix:PATH"},
		{[]string{"--serial", "/dev/null", "--baud", "1", "--server", server}, exitUsage, "no baud rate"},
		{[]string{"--serial", "unix:s", "--baud", "9600", "--server", server}, exitUsage, "a socket has no rate"},
		{[]string{"--serial", "/dev/null", "--server", server}, exitFailed, "not a serial line"},
	} {
		var errOut bytes.Buffer
		if code := run(t.Context(), append([]string{"bridge"}, c.args...), nil, io.Discard, &errOut); code != c.code ||
			!bytes.Contains(errOut.Bytes(), []byte(c.want)) || !bytes.Contains(errOut.Bytes(), []byte("error: ")) {
			t.Errorf("%v: status %d, %s", c.args, code, &errOut)
		}
	}
}

// TestBridgeLines: what people see of events.
func TestBridgeLines(t *testing.T) {
	for _, c := range []struct {
		e    bridgeEvent
		want string
	}{
		{bridgeEvent{Seconds: 1.5, Event: "waiting", Line: "unix:s", Text: "connection refused"}, "    1.50s  waiting    unix:s: connection refused"},
		{bridgeEvent{Event: "connected", Line: "/dev/ttyUSB0"}, "    0.00s  connected  /dev/ttyUSB0"},
		{bridgeEvent{Event: "request", Method: "POST", Target: "/r1/poll", Status: 200}, "    0.00s  request    POST /r1/poll 200"},
		{bridgeEvent{Event: "board", Said: "staged", Slot: "ota_1", Bytes: 12345}, "    0.00s  board      staged ota_1 12,345 bytes"},
		{bridgeEvent{Event: "damaged", Count: 4, Text: "damaged frames"}, "    0.00s  damaged    4 damaged frames"},
		{bridgeEvent{Event: "stopped"}, "    0.00s  stopped"},
		{bridgeEvent{Event: "refused", Text: "a\x1b[2Jb"}, "    0.00s  refused    a [2Jb"},
	} {
		if got := c.e.text(); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}
