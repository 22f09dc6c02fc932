// Package qemu runs firmware in an emulated microcontroller: QEMU's microbit, an
// nRF51 with 16 KiB of RAM, and netduinoplus2, an STM32F405. The emulator ends where
// a program leaves its RAM, so what runs in it fits.
//
// QEMU puts the flash back as it was loaded at each reset. So one process is one
// start of the chip: a reset, a power cut and the end of a test take flash out, and
// the next start puts it into a new process.
package qemu

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Program is the emulator's name; a machine without it can't run these.
const Program = "qemu-system-arm"

// Memory is a range of the chip's address space.
type Memory struct{ Base, Size uint32 }

// Board is what QEMU calls a machine.
type Board struct {
	Machine string
	// Flash outlives everything; RAM outlives a reset, not a loss of power.
	Flash, RAM Memory
}

// shift: an instruction takes 2^shift nanoseconds of the chip's time. The chip is that
// much faster than the real one, so that a busy machine, which answers late, looks to it
// like a slow line and not like a dead one. Where it sleeps, time jumps.
const shift = 3

// Microbit is the BBC micro:bit: 256 KiB of flash, 16 KiB of RAM.
var Microbit = Board{Machine: "microbit", Flash: Memory{0, 256 << 10}, RAM: Memory{0x20000000, 16 << 10}}

// Netduino is the Netduino Plus 2: RAM as far as its program may use it. What lies in
// its flash is its program only: QEMU does not model writes to it.
var Netduino = Board{Machine: "netduinoplus2", Flash: Memory{0x08000000, 1 << 20}, RAM: Memory{0x20000000, 64 << 10}}

// Chip is a chip between two starts.
type Chip struct {
	Board Board
	Flash []byte
	RAM   []byte // nil: power was off
}

// PowerCut forgets what RAM held.
func (c *Chip) PowerCut() { c.RAM = nil }

// Run is a chip that runs.
type Run struct {
	// Serial is the chip's line, to be read and written by the one who started it.
	Serial net.Conn

	chip   *Chip
	dir    string
	cmd    *exec.Cmd
	qmp    *qmp
	gdb    *gdb
	output strings.Builder
	exited chan struct{}
	err    error // of the process, once exited is closed
}

// Why a run ended.
var (
	ErrReset = errors.New("the chip was reset by its program")
	ErrDied  = errors.New("the emulator ended by itself: the program left its memory")
)

// startTimeout is how long an emulator may take to come up; it takes 50 ms.
const startTimeout = 30 * time.Second

// Start powers a chip on. With stop it stands before its first instruction, so that
// a breakpoint can be set; the chip then sleeps in real time.
func (c *Chip) Start(ctx context.Context, stop bool) (r *Run, err error) {
	r = &Run{chip: c, exited: make(chan struct{})}
	if r.dir, err = os.MkdirTemp("", "qemu"); err != nil {
		return nil, err
	}
	started := r // an error is returned with no Run
	defer func() {
		if err != nil {
			started.Kill()
		}
	}()
	serial, err := net.Listen("unix", r.path("serial"))
	if err != nil {
		return nil, err
	}
	defer serial.Close()
	// Where time jumps over sleep, it jumps over each stop of the debugger too, and the
	// watchdog bites.
	sleep := "off"
	if stop {
		sleep = "on"
	}
	// The mux takes bytes off the socket before the chip has room for them: half the time of
	// a chip that has room for one. It has no escape character, as 256 is no byte.
	args := []string{"-machine", c.Board.Machine, "-display", "none", "-nodefaults",
		"-icount", fmt.Sprintf("shift=%d,align=off,sleep=%s", shift, sleep),
		"-action", "reboot=shutdown", "-action", "shutdown=pause",
		"-chardev", "socket,id=line,path=" + r.path("serial") + ",mux=on", "-serial", "chardev:line", "-echr", "256",
		"-qmp", "unix:" + r.path("qmp") + ",server=on,wait=off", "-S"}
	if stop {
		args = append(args, "-gdb", "unix:"+r.path("gdb")+",server=on,wait=off")
	}
	load := func(name string, p []byte, base uint32) error {
		if len(p) == 0 {
			return nil
		}
		args = append(args, "-device", fmt.Sprintf("loader,file=%s,addr=0x%x,force-raw=on", r.path(name), base))
		return os.WriteFile(r.path(name), p, 0o600)
	}
	if err := load("flash.bin", c.Flash, c.Board.Flash.Base); err != nil {
		return nil, err
	}
	if err := load("ram.bin", c.RAM, c.Board.RAM.Base); err != nil {
		return nil, err
	}
	r.cmd = exec.Command(Program, args...)
	r.cmd.Stdout, r.cmd.Stderr = &r.output, &r.output
	if err := r.cmd.Start(); err != nil {
		r.cmd = nil
		return nil, fmt.Errorf("%s: %w; on Debian: apt-get install qemu-system-arm", Program, err)
	}
	go func() {
		r.err = r.cmd.Wait()
		close(r.exited)
	}()
	limit, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if r.Serial, err = accept(limit, serial); err != nil {
		return nil, r.because(err)
	}
	if r.qmp, err = dialQMP(limit, r.path("qmp")); err != nil {
		return nil, r.because(err)
	}
	if !stop {
		return r, r.qmp.do("cont", nil)
	}
	if r.gdb, err = dialGDB(limit, r.path("gdb")); err != nil {
		return nil, r.because(err)
	}
	return r, nil
}

func (r *Run) path(name string) string { return filepath.Join(r.dir, name) }

func accept(ctx context.Context, l net.Listener) (net.Conn, error) {
	if d, ok := ctx.Deadline(); ok {
		_ = l.(*net.UnixListener).SetDeadline(d) // of a listener that is open: it can't fail
	}
	return l.Accept()
}

// because adds what the emulator said.
func (r *Run) because(err error) error {
	select {
	case <-r.exited:
	case <-time.After(100 * time.Millisecond):
		return err
	}
	return fmt.Errorf("%w: %v: %s", ErrDied, r.err, strings.TrimSpace(r.output.String()))
}

// Wait waits until the program resets the chip (ErrReset), the emulator dies (ErrDied)
// or ctx ends. The chip stands still then, and Off can be called.
func (r *Run) Wait(ctx context.Context) error {
	select {
	case <-r.qmp.shutdown:
		return ErrReset
	case <-r.exited:
		return r.because(ErrDied)
	case <-ctx.Done():
		if err := r.qmp.do("stop", nil); err != nil {
			return r.because(err)
		}
		return ctx.Err()
	}
}

// Off takes flash and RAM out of the chip, which stands still, and ends the emulator.
func (r *Run) Off() error {
	defer r.Kill()
	flash, err := r.dump(r.chip.Board.Flash)
	if err != nil {
		return r.because(err)
	}
	ram, err := r.dump(r.chip.Board.RAM)
	if err != nil {
		return r.because(err)
	}
	if r.chip.Flash != nil {
		r.chip.Flash = flash
	}
	r.chip.RAM = ram
	return nil
}

func (r *Run) dump(m Memory) ([]byte, error) {
	err := r.qmp.do("memsave", map[string]any{"val": m.Base, "size": m.Size, "filename": r.path("dump")})
	if err != nil {
		return nil, err
	}
	return os.ReadFile(r.path("dump"))
}

// Kill ends the emulator at once. It may be called again. Nothing is done about what
// fails here: the process may be gone already, and with it its connections; what can't
// be removed is left to the system.
func (r *Run) Kill() {
	if r.cmd != nil {
		_ = r.cmd.Process.Kill()
		<-r.exited
	}
	if r.Serial != nil {
		_ = r.Serial.Close()
	}
	r.qmp.close()
	r.gdb.close()
	_ = os.RemoveAll(r.dir)
}
