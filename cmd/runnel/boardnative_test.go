package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/runnel-fota/runnel/core/esp32"
	"github.com/runnel-fota/runnel/internal/client"
	"github.com/runnel-fota/runnel/sim/board"
	"github.com/runnel-fota/runnel/sim/nor"
)

// A stream is a plain file: a client that knows nothing of Runnel is cut off in the
// middle, goes on with Range and If-Range, and ends with the bytes whose SHA-256 is
// the name.
func TestStreamResumesAsAnyFile(t *testing.T) {
	url, token, stop := inProcess(t, "--data", filepath.Join(t.TempDir(), "d"))
	defer stop()
	_, d := publishPump(t, url, token)
	s := d.Streams[0]
	target := url + "/r1/streams/" + s.Digest
	file := filepath.Join(t.TempDir(), "stream.part")
	tag := ""
	for round := 0; ; round++ {
		f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		at, err := f.Seek(0, io.SeekEnd)
		if err != nil {
			t.Fatal(err)
		}
		req, err := http.NewRequestWithContext(t.Context(), "GET", target, nil)
		if err != nil {
			t.Fatal(err)
		}
		if at > 0 {
			req.Header.Set("Range", fmt.Sprintf("bytes=%d-", at))
			req.Header.Set("If-Range", tag)
		}
		resp, err := (&http.Transport{}).RoundTrip(req) // a connection of its own each time
		if err != nil {
			t.Fatal(err)
		}
		if want := map[bool]int{true: 206, false: 200}[at > 0]; resp.StatusCode != want {
			t.Fatalf("round %d: status %d, want %d", round, resp.StatusCode, want)
		}
		if tag == "" {
			tag = resp.Header.Get("ETag")
		}
		// Two rounds end somewhere in the middle of a record.
		_, err = io.CopyN(f, resp.Body, 70_001)
		whole := errors.Is(err, io.EOF)
		if err != nil && !whole {
			t.Fatal(err)
		}
		resp.Body.Close()
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if whole {
			if round < 2 {
				t.Errorf("the stream came in %d rounds", round+1)
			}
			break
		}
	}
	got, err := os.ReadFile(file)
	if err != nil || int64(len(got)) != s.Length || fmt.Sprintf("%x", sha256.Sum256(got)) != s.Digest {
		t.Errorf("%d bytes of %d, %v: not the file that its name promises", len(got), s.Length, err)
	}
}

// lineSink hands whole lines of output on, and can end what writes them.
type lineSink struct {
	buf  bytes.Buffer
	line func(string)
}

func (s *lineSink) Write(p []byte) (int, error) {
	s.buf.Write(p)
	for {
		line, err := s.buf.ReadString('\n')
		if err != nil {
			s.buf.WriteString(line)
			return len(p), nil
		}
		s.line(line)
	}
}

// A key that is not the device's: nothing is believed, nothing is written, and it
// says why. Native keys never show.
func TestBoardWithAnotherKey(t *testing.T) {
	url, token, stop := inProcess(t, "--data", filepath.Join(t.TempDir(), "d"))
	defer stop()
	publishPump(t, url, token)
	c, err := client.New(url, token)
	if err != nil {
		t.Fatal(err)
	}
	right, wrong := strings.Repeat("5a", 32), strings.Repeat("5b", 32)
	if _, err := c.AddNativeDevice(t.Context(), "pump-7", "acme/pump", right, ""); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	flash, key, app := filepath.Join(dir, "board.bin"), filepath.Join(dir, "wrong.key"), filepath.Join(dir, "a.bin")
	img, err := board.BuildImage(board.ImageSpec{Size: 64 << 10, Chip: esp32.ChipESP32C3, Version: "A"})
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{key: []byte(wrong), app: img} {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var said bytes.Buffer
	if code := run(t.Context(), []string{"board", "new", "--flash", flash, "--app", app}, nil, &said, &said); code != 0 {
		t.Fatal(said.String())
	}
	before, err := os.ReadFile(flash)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var lines []boardEvent
	out := &lineSink{line: func(s string) {
		var e boardEvent
		if err := json.Unmarshal([]byte(s), &e); err != nil {
			t.Errorf("%v: %s", err, s)
		}
		if lines = append(lines, e); e.Event == "unreachable" {
			cancel() // the plug is pulled
		}
		said.WriteString(s)
	}}
	code := run(ctx, []string{"board", "run", "--flash", flash, "--server", url, "--id", "pump-7", "--key-file", key, "--product", "acme/pump",
		"--mac-only", "--json"}, nil, out, &said)
	if code != 0 || len(lines) == 0 {
		t.Fatalf("status %d: %s", code, said.String())
	}
	told := ""
	for _, l := range lines {
		if l.Event == "unreachable" {
			told = l.Text + ": " + l.Reason
		}
		if l.Event == "offer" || l.Event == "chunk" {
			t.Errorf("%+v", l)
		}
	}
	if !strings.Contains(told, "401: the server refuses this device or its key") {
		t.Errorf("it says %q", told)
	}
	if strings.Contains(said.String(), wrong) || strings.Contains(said.String(), right) {
		t.Error("a key is shown")
	}
	after, err := os.ReadFile(flash)
	if err != nil || !bytes.Equal(before[0x10000:0x3D0000], after[0x10000:0x3D0000]) {
		t.Errorf("a slot was written: %v", err)
	}
}

// The chip of a board is that of the image that would start, found without a write.
func TestRunningChip(t *testing.T) {
	for _, chip := range []uint16{esp32.ChipESP32, esp32.ChipESP32C3, esp32.ChipESP32S3} {
		c, err := nor.New(nor.Config{})
		if err != nil {
			t.Fatal(err)
		}
		img, err := board.BuildImage(board.ImageSpec{Size: 64 << 10, Chip: chip, Version: "A"})
		if err != nil {
			t.Fatal(err)
		}
		if err := (&board.Board{Chip: c, ChipID: chip}).Write(board.Layout{Table: board.DefaultTable(), App: img}); err != nil {
			t.Fatal(err)
		}
		ops := c.Stats().Ops()
		if got, err := runningChip(c, false); err != nil || got != chip || c.Stats().Ops() != ops {
			t.Errorf("chip %d: %d, %v, %d operations", chip, got, err, c.Stats().Ops()-ops)
		}
	}
	empty, err := nor.New(nor.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := runningChip(empty, false); err == nil {
		t.Error("an empty flash has a chip")
	}
}

// Budgets of the native wire: 3,072 bytes with chunks of 1,024, 6,656 with 4,096.
func TestNativeRAMMeter(t *testing.T) {
	for chunk, budget := range map[int]int{256: 3072, 1024: 3072, 4096: 6656} {
		m := newRAMMeter(board.NativeWire, chunk, 2)
		if m.sample(uint32(chunk)); m.budget != budget || m.peak != board.WorkingSet(board.NativeWire, chunk, 2) || m.peak > budget {
			t.Errorf("chunks of %d: %d bytes of %d, budget %d", chunk, m.peak, board.WorkingSet(board.NativeWire, chunk, 2), m.budget)
		}
	}
}
