// Command flash reaches the exported API of core/flash.
package main

import (
	"github.com/runnel-fota/runnel/core/flash"
	"github.com/runnel-fota/runnel/tools/tinygo/check/board"
)

var (
	area flash.Area
	buf  [16]byte
)

func main() {
	var err error
	area, err = flash.NewArea(board.Flash(), board.Input(), board.Input())
	board.Err(err)
	sub, err := area.Sub(board.Input(), board.Input())
	board.Err(err)
	use(&sub)
}

func use(a *flash.Area) {
	board.Fill(buf[:])
	board.Err(a.Erase(board.Input(), board.Input()))
	a.Blank(buf[:])
	board.Err(a.Program(buf[:], board.Input()))
	board.Err(a.ReadAt(buf[:], board.Input()))
	board.Err(a.Sync())
	board.Bytes(buf[:])
	board.Output(a.Base())
	board.Output(a.Size())
	board.Output(a.Geometry().EraseSize)
	board.Output(a.EraseSize() + a.ProgramSize())
	board.Output(a.EraseUnit(board.Input(), board.Input()))
	board.Text(flash.Error(board.Input()).Error())
}
