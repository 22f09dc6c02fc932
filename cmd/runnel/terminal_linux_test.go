package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/runnel-fota/runnel/internal/client"
	"github.com/runnel-fota/runnel/internal/testenv"
	"github.com/runnel-fota/runnel/sim/board"
)

// openTerminal makes a terminal: what the program has, and what the person has.
func openTerminal(t *testing.T, cols, rows uint16) (program, person *os.File) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		testenv.Missing(t, fmt.Sprintf("no terminals here: %v", err))
	}
	person = os.NewFile(uintptr(fd), "person")
	t.Cleanup(func() { person.Close() })
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Col: cols, Row: rows}); err != nil {
		t.Fatal(err)
	}
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return program, person
}

// onTerminal runs the program on a terminal of its own, and calls see with all
// that it has drawn so far, each time there is more; what see answers is typed.
func onTerminal(t *testing.T, bin string, env, args []string, see func(drawn string) (typed string)) (drawn string, status int) {
	t.Helper()
	program, person := openTerminal(t, 80, 60) // high enough that no line moves
	// What never comes up on the screen would be waited for for ever.
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, bin, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = program, program, program
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := program.Close(); err != nil {
		t.Fatal(err)
	}
	var all bytes.Buffer
	buf := make([]byte, 4096)
	for {
		n, err := person.Read(buf)
		all.Write(buf[:n])
		if err != nil {
			break // EIO: nobody has the terminal open any more
		}
		if see == nil {
			continue
		}
		if typed := see(all.String()); typed != "" {
			if _, err := person.WriteString(typed); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Logf("%v: %v", args, err)
	}
	return all.String(), cmd.ProcessState.ExitCode()
}

// once types keys when something was drawn, and no second time. What a frame has in
// common with the last one is not drawn again: only what comes up new is found.
func once(what, keys string) func(string) string {
	return func(drawn string) string {
		if !strings.Contains(drawn, what) {
			return ""
		}
		typed := keys
		keys = ""
		return typed
	}
}

// The live view on a terminal: ctrl-C and q are power cuts, the terminal is given
// back, colours are left away where they are not wanted, and a terminal that can't
// move its cursor gets lines.
func TestBoardOnATerminal(t *testing.T) {
	bin, dir := buildRunnel(t), t.TempDir()
	p := startServer(t, bin, filepath.Join(dir, "data"))
	c, err := client.New(p.url, p.token)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.AddDevice(t.Context(), "pump-7", "acme/pump", serveKey); err != nil {
		t.Fatal(err)
	}
	img, err := board.BuildImage(board.ImageSpec{Size: 1 << 20, Project: "terminal", Version: "2"})
	if err != nil {
		t.Fatal(err)
	}
	image, flash := filepath.Join(dir, "b.bin"), filepath.Join(dir, "board.bin")
	if err := os.WriteFile(image, img, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(bin, "board", "new", "--flash", flash).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if out, err := exec.Command(bin, "push", image, "--product", "acme/pump", "--version", "2", "--server", p.url, "--token", p.token).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	args := []string{"board", "run", "--flash", flash, "--server", p.url, "--id", "pump-7", "--psk", serveKey, "--poll", "50ms"}
	const hideCursor, showCursor, colour = "\x1b[?25l", "\x1b[?25h", "\x1b[36m"

	drawn, status := onTerminal(t, bin, []string{"TERM=xterm-256color", "NO_COLOR="}, args, once("of 1,048,576 bytes", "\x03"))
	for _, want := range []string{hideCursor, colour, "pump-7 at http://127.0.0.1", "updater's RAM", "# running", "of 1,048,576 bytes", "power_cut"} {
		if !strings.Contains(drawn, want) {
			t.Errorf("the view does not show %q", want)
		}
	}
	if status != exitOK || strings.LastIndex(drawn, showCursor) < strings.LastIndex(drawn, hideCursor) {
		t.Errorf("after ctrl-C: status %d, the cursor is hidden: %q", status, drawn[max(0, len(drawn)-200):])
	}

	// The same board, powered on again: it goes on and ends on the new image.
	drawn, status = onTerminal(t, bin, []string{"TERM=xterm-256color", "NO_COLOR=1"}, append(args, "--once"), nil)
	if status != exitOK || strings.Contains(drawn, colour) || !strings.Contains(drawn, "# running") {
		t.Errorf("without colours: status %d: %q", status, drawn)
	}
	// q is a power cut too.
	if drawn, status = onTerminal(t, bin, []string{"TERM=xterm-256color"}, args, once("# running", "q")); status != exitOK || !strings.Contains(drawn, "power_cut") {
		t.Errorf("after q: status %d: %q", status, drawn)
	}
	drawn, status = onTerminal(t, bin, []string{"TERM=dumb"}, append(args, "--once"), nil)
	if status != exitOK || strings.Contains(drawn, "\x1b") || !strings.Contains(drawn, "running       ota_1") {
		t.Errorf("on a dumb terminal: status %d: %q", status, drawn)
	}
	drawn, status = onTerminal(t, bin, []string{"TERM=xterm-256color"}, append(args, "--once", "--json"), nil)
	if status != exitOK || strings.Contains(drawn, "\x1b") {
		t.Errorf("as JSON: status %d: %q", status, drawn)
	}
}

// An upload that takes long is shown: here the server reads nothing until it was.
func TestPushOnATerminal(t *testing.T) {
	seen := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-seen:
		case <-r.Context().Done():
		}
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"release":{"id":1,"product":"p","version":"2","size":1048576,"chunks":1024,"chunk_size":1024},"created":true}`)
	}))
	defer server.Close()
	img, err := board.BuildImage(board.ImageSpec{Size: 1 << 20, Version: "2"})
	if err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(t.TempDir(), "b.bin")
	if err := os.WriteFile(image, img, 0o600); err != nil {
		t.Fatal(err)
	}
	closed := false
	drawn, status := onTerminal(t, buildRunnel(t), []string{"TERM=xterm"}, []string{"push", image, "--product", "p", "--version", "2", "--server", server.URL, "--token", "x"},
		func(drawn string) string {
			if !closed && strings.Contains(drawn, "\ruploading ") {
				closed = true
				close(seen)
			}
			return ""
		})
	_, after, found := strings.Cut(drawn, "\r\x1b[K")
	if status != exitOK || !found || !strings.Contains(drawn, "of 1,048,576 bytes") || !strings.Contains(after, "published p 2 (release 1)") {
		t.Errorf("status %d: %q", status, drawn)
	}
}

// On a terminal the demo shows how far a download is, in one line.
func TestDemoOnATerminal(t *testing.T) {
	drawn, status := onTerminal(t, buildRunnel(t), []string{"TERM=xterm"}, []string{"demo"}, nil)
	if status != exitOK || !strings.Contains(drawn, "\r          downloading  ") || !strings.Contains(drawn, "of 1,068,032 bytes") || strings.Contains(drawn, " 105 of") {
		t.Errorf("status %d: %q", status, drawn)
	}
	if !strings.Contains(drawn, "RAM in use") {
		t.Errorf("no table: %q", drawn)
	}
}
