// Command patch reaches the exported API of core/patch.
package main

import (
	"github.com/runnel-fota/runnel/core/flash"
	"github.com/runnel-fota/runnel/core/patch"
	"github.com/runnel-fota/runnel/tools/tinygo/check/board"
)

var (
	applier  patch.Applier
	memory   [patch.SmallWords]uint16
	out      [256]byte
	in       [128]byte
	old, new flash.Area
)

// held is a second Source, which keeps its caller's buffer.
type held struct{ p []byte }

func (s *held) ReadAt(p []byte, off uint32) error {
	s.p = p
	board.Fill(s.p)
	return nil
}

var other held

func main() {
	var err error
	old, err = flash.NewArea(board.Flash(), 0, board.Input())
	board.Err(err)
	new, err = flash.NewArea(board.Flash(), board.Input(), board.Input())
	board.Err(err)
	c := patch.Config{Old: &old, OldSize: board.Input(), New: &new, NewSize: board.Input(), Out: out[:], Memory: memory[:]}
	if board.Bool() {
		c.Old, c.New = &other, &other
	}
	board.Text(applier.Begin(c).Error())
	board.Text(applier.ResumeAt(board.Input()).Error())
	for {
		switch applier.Step() {
		case patch.Hungry:
			board.Fill(in[:])
			board.Output(uint32(applier.Feed(in[:])))
			if board.Bool() {
				applier.End()
			}
		case patch.Full:
			board.Bytes(applier.Output())
			applier.Wrote()
		case patch.Restart:
			board.Output(applier.LinkAt())
			board.Output(applier.Made())
			board.Bytes(applier.Link()[:])
			board.Flag(applier.Kept())
			for off := uint32(0); off < applier.SnapshotLen(); off += uint32(len(in)) {
				applier.Snapshot(in[:], off)
				board.Bytes(in[:])
			}
		case patch.Seek:
			applier.Restore(in[:], board.Input())
		default:
			board.Text(applier.Err().Error())
			return
		}
	}
}
