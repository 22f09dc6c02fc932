package rig

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// ticks a second in /proc/PID/stat: USER_HZ, 100 on every Linux that Go runs on.
	ticks   = 100
	startup = 2 * time.Minute // a large database is looked at first
	stopIn  = 30 * time.Second
)

// Process is a server that is measured.
type Process struct {
	Addr  string // host:port
	cmd   *exec.Cmd
	done  chan struct{}
	pids  func() []int // its own, and those of its workers
	token string
}

// Serve starts "runnel serve" on a data folder, with a port of the system's choice.
// It is stopped when the measurement is over.
func (b *Bench) Serve(ctx context.Context, data string, args ...string) (*Process, error) {
	cmd := b.command(context.WithoutCancel(ctx), b.Work, append([]string{"serve", "--json", "--data", data, "--listen", "127.0.0.1:0"}, args...)...)
	log, err := os.Create(filepath.Join(filepath.Dir(data), "server.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close() // the process has its own
	cmd.Stderr = log
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := b.watch(cmd)
	p.pids = func() []int { return []int{cmd.Process.Pid} }
	var ready struct {
		URL   string `json:"url"`
		Token string `json:"admin_token"`
	}
	lines := bufio.NewReader(out)
	line, err := lines.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &ready)
	}
	u, e := url.Parse(ready.URL)
	if err = errors.Join(err, e); err != nil {
		return nil, fmt.Errorf("the server did not start, see %s: %w", log.Name(), err)
	}
	// So that the server never waits for a reader; it ends, with an error or without, when the server does.
	go func() { _, _ = io.Copy(io.Discard, lines) }()
	p.Addr, p.token = u.Host, ready.Token
	return p, nil
}

// watch waits for a process, and stops it in the end.
func (b *Bench) watch(cmd *exec.Cmd) *Process {
	p := &Process{cmd: cmd, done: make(chan struct{})}
	go func() { _ = cmd.Wait(); close(p.done) }() // that a signal ended it is no news
	b.End(p.Stop)
	return p
}

// Stop ends the process in peace, or by force where it takes too long.
func (p *Process) Stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // an error: it has ended
	select {
	case <-p.done:
	case <-time.After(stopIn):
		_ = p.cmd.Process.Kill() // an error: it has ended
		<-p.done
	}
}

// answers waits until somebody listens.
func (p *Process) answers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startup)
	defer cancel()
	for tick := time.NewTicker(10 * time.Millisecond); ; {
		if c, err := net.Dial("tcp", p.Addr); err == nil {
			tick.Stop()
			return c.Close()
		}
		select {
		case <-tick.C:
		case <-p.done:
			return fmt.Errorf("%s ended", p.cmd.Path)
		case <-ctx.Done():
			return fmt.Errorf("%s does not answer at %s", p.cmd.Path, p.Addr)
		}
	}
}

// CPU is the processor time that it took so far.
func (p *Process) CPU() time.Duration {
	var all time.Duration
	for _, pid := range p.pids() {
		all += cpuOf(strconv.Itoa(pid))
	}
	return all
}

// OwnCPU is the processor time that this process took so far: the load generator's.
func OwnCPU() time.Duration { return cpuOf("self") }

func cpuOf(pid string) time.Duration {
	text, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return 0
	}
	// The name, in brackets, may hold anything.
	_, rest, _ := strings.Cut(string(text), ") ")
	f := strings.Fields(rest)
	if len(f) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * time.Second / ticks
}

// Memory is what of it is in RAM, in bytes: its own, and pages of files.
func (p *Process) Memory() (anonymous, file int64) {
	for _, pid := range p.pids() {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			name, value, _ := strings.Cut(line, ":")
			n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			switch {
			case err != nil:
			case name == "RssAnon":
				anonymous += n << 10
			case name == "RssFile":
				file += n << 10
			}
		}
	}
	return anonymous, file
}
