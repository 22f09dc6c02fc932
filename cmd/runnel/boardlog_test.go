package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/internal/term"
	"github.com/runnel-fota/runnel/sim/board"
	"github.com/runnel-fota/runnel/sim/nor"
)

func TestRateMeter(t *testing.T) {
	now := time.Unix(0, 0)
	var m rateMeter
	if r := m.add(now, 1000); r != 0 {
		t.Errorf("a rate of %g from one look", r)
	}
	m.reset(now, 1000)
	var r float64
	for i := range 100 {
		now = now.Add(100 * time.Millisecond)
		r = m.add(now, 1000+uint32(i+1)*100)
	}
	if r < 999 || r > 1001 {
		t.Errorf("%g bytes a second, want 1000", r)
	}
	// The server is away for a minute; three seconds later that is forgotten.
	now = now.Add(time.Minute)
	at := uint32(11000)
	for range 40 {
		now = now.Add(100 * time.Millisecond)
		at += 100
		r = m.add(now, at)
	}
	if r < 999 || r > 1001 {
		t.Errorf("%g bytes a second after a pause, want 1000", r)
	}
	if r := m.add(now, 0); r != 0 {
		t.Errorf("a rate of %g backwards", r)
	}
}

func TestRAMMeter(t *testing.T) {
	m := newRAMMeter(board.V1, 1024, 2)
	if m.resident+1024 != board.WorkingSet(board.V1, 1024, 2) || m.budget != 3072 {
		t.Errorf("%d bytes without a chunk, budget %d", m.resident, m.budget)
	}
	m.sample(1024)
	m.sample(0)
	if m.used() != m.resident || m.peak != m.resident+1024 {
		t.Errorf("%d in use, at most %d, after a chunk went to flash; without one it is %d", m.used(), m.peak, m.resident)
	}
	if big := newRAMMeter(board.V1, 16384, 2); big.budget != 16384+ramBeside {
		t.Errorf("a budget of %d with a chunk buffer of 16384", big.budget)
	}
}

// What a board says over and over is said once; what a server named moves no cursor.
func TestBoardLogLines(t *testing.T) {
	var out bytes.Buffer
	l := newBoardLog(&out, false, board.V1, 1024, 2)
	for range 3 {
		l.emit(boardEvent{Event: "up_to_date", Slot: "ota_0"})
	}
	l.emit(boardEvent{Event: "offer", Slot: "ota_1", Version: "1\x1b[2J\n2", Total: 1908192})
	for range 2 {
		l.emit(boardEvent{Event: "unreachable", Text: "connection refused"})
	}
	l.emit(boardEvent{Event: "up_to_date", Slot: "ota_0"})
	got := out.String()
	if n := strings.Count(got, "\n"); n != 4 {
		t.Errorf("%d lines, want 4:\n%s", n, got)
	}
	if strings.Contains(got, "\x1b") || !strings.Contains(got, "0 of 1,908,192 bytes") || !strings.Contains(got, "unreachable   connection refused\n") {
		t.Errorf("%q", got)
	}
	out.Reset()
	l = newBoardLog(&out, true, board.V1, 1024, 2)
	for range 2 {
		l.emit(boardEvent{Event: "up_to_date"})
	}
	if n := strings.Count(out.String(), `"event":"up_to_date"}`+"\n"); n != 2 {
		t.Errorf("as JSON every event is told: %s", out.String())
	}
}

// The map says of each sector what it holds.
func TestFlashCells(t *testing.T) {
	chip, err := nor.New(nor.Config{})
	if err != nil {
		t.Fatal(err)
	}
	img, err := board.BuildImage(board.ImageSpec{Size: 64 << 10, Version: "1"})
	if err != nil {
		t.Fatal(err)
	}
	b := &board.Board{Chip: chip}
	table := board.DefaultTable()
	if err := b.Write(board.Layout{Table: table, App: img}); err != nil {
		t.Fatal(err)
	}
	// The other slot holds an older image of three sectors; one is written anew.
	if err := chip.Load(0x1F0000, bytes.Repeat([]byte{1}, 3*4096)); err != nil {
		t.Fatal(err)
	}
	cells := flashCells(chip.Raw(), 4096, &table, device.Status{Running: 0, Target: 1, Written: 4096})
	if len(cells) != 1024 {
		t.Fatalf("%d cells", len(cells))
	}
	for off, want := range map[int]term.Cell{
		0: term.CellNone, 0x8000: term.CellBoot, 0x9000: term.CellData, 0xC000: term.CellBoot, 0xE000: term.CellData,
		0x10000: term.CellRunning, 0x1F000: term.CellRunning, 0x20000: term.CellErased, 0x1EF000: term.CellErased,
		0x1F0000: term.CellNew, 0x1F1000: term.CellOld, 0x1F2000: term.CellOld, 0x1F3000: term.CellErased,
		0x3D0000: term.CellData, 0x3D2000: term.CellData, 0x3D8000: term.CellNone,
	} {
		if got := cells[off/4096]; got != want {
			t.Errorf("sector at %#x is %q, want %q", off, got, want)
		}
	}
	// After the switch it is the other way round.
	cells = flashCells(chip.Raw(), 4096, &table, device.Status{Running: 1, Target: 0})
	if cells[0x10000/4096] != term.CellOld || cells[0x1F0000/4096] != term.CellRunning {
		t.Errorf("after the switch: %q, %q", cells[0x10000/4096], cells[0x1F0000/4096])
	}
}
