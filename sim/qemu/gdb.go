package qemu

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"strings"
)

// gdb speaks as much of GDB's remote protocol as a power cut needs: stop at an
// address, look at registers and memory, change memory, go on.
type gdb struct {
	conn net.Conn
	in   *bufio.Reader
}

func dialGDB(ctx context.Context, path string) (*gdb, error) {
	conn, err := dial(ctx, path)
	if err != nil {
		return nil, err
	}
	g := &gdb{conn: conn, in: bufio.NewReader(conn)}
	if _, err := g.ask("?"); err != nil { // why it stands: it was started so
		g.close()
		return nil, err
	}
	return g, nil
}

func (g *gdb) close() {
	if g != nil {
		_ = g.conn.Close() // nothing was left to send
	}
}

func (g *gdb) send(packet string) error {
	sum := byte(0)
	for i := range len(packet) {
		sum += packet[i]
	}
	_, err := fmt.Fprintf(g.conn, "$%s#%02x", packet, sum)
	return err
}

// receive skips acknowledgements and returns the next packet.
func (g *gdb) receive() (string, error) {
	if _, err := g.in.ReadString('$'); err != nil {
		return "", err
	}
	p, err := g.in.ReadString('#')
	if err != nil {
		return "", err
	}
	var sum [2]byte
	for i := range sum {
		if sum[i], err = g.in.ReadByte(); err != nil {
			return "", err
		}
	}
	_, err = g.conn.Write([]byte("+"))
	return strings.TrimSuffix(p, "#"), err
}

func (g *gdb) ask(packet string) (string, error) {
	if err := g.send(packet); err != nil {
		return "", err
	}
	return g.receive()
}

func (g *gdb) ok(packet string) error {
	a, err := g.ask(packet)
	if err == nil && a != "OK" {
		err = fmt.Errorf("gdb %q: answer %q", packet, a)
	}
	return err
}

// Break has the chip stop before the instruction at addr; Delete takes it back.
func (r *Run) Break(addr uint32) error  { return r.gdb.ok(fmt.Sprintf("Z1,%x,2", addr&^1)) }
func (r *Run) Delete(addr uint32) error { return r.gdb.ok(fmt.Sprintf("z1,%x,2", addr&^1)) }

// Continue runs to the next breakpoint and returns its address; ErrReset or ErrDied
// where the program does not come to one. A breakpoint that the chip stands at has to
// be deleted before: it would stop there again. (A single step over it would do, but
// the emulator's clock jumps by it.)
func (r *Run) Continue(ctx context.Context) (pc uint32, err error) {
	if err := r.gdb.send("c"); err != nil {
		return 0, r.because(err)
	}
	type stop struct {
		packet string
		err    error
	}
	stopped := make(chan stop, 1)
	go func() {
		p, err := r.gdb.receive()
		stopped <- stop{p, err}
	}()
	select {
	case s := <-stopped:
		switch {
		case s.err != nil:
			return 0, r.because(s.err)
		case strings.HasPrefix(s.packet, "T03"): // QUIT: the program reset the chip
			return 0, ErrReset
		case !strings.HasPrefix(s.packet, "T05"):
			return 0, fmt.Errorf("gdb: stopped with %q", s.packet)
		}
		return r.Register(15)
	case <-r.exited:
		return 0, r.because(ErrDied)
	case <-ctx.Done():
		if err := r.qmp.do("stop", nil); err != nil {
			return 0, r.because(err)
		}
		return 0, ctx.Err()
	}
}

// Register n of the CPU, 0 to 15.
func (r *Run) Register(n int) (uint32, error) {
	a, err := r.gdb.ask("g") // "p" wants a description of the CPU to have been read
	if err != nil {
		return 0, err
	}
	p, err := hex.DecodeString(a)
	if err != nil || len(p) < 4*16 {
		return 0, fmt.Errorf("gdb: registers are %q", a)
	}
	return binary.LittleEndian.Uint32(p[4*n:]), nil
}

// Word of memory at addr.
func (r *Run) Word(addr uint32) (uint32, error) {
	a, err := r.gdb.ask(fmt.Sprintf("m%x,4", addr))
	if err != nil {
		return 0, err
	}
	p, err := hex.DecodeString(a)
	if err != nil || len(p) != 4 {
		return 0, fmt.Errorf("gdb: word at 0x%x is %q", addr, a)
	}
	return binary.LittleEndian.Uint32(p), nil
}
