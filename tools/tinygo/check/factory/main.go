// Command factory reaches the exported API of core/factory.
package main

import (
	"github.com/runnel-fota/runnel/core/factory"
	"github.com/runnel-fota/runnel/tools/tinygo/check/board"
)

var (
	page factory.Page
	buf  [256]byte
)

func main() {
	board.Fill(buf[:])
	if e := page.Parse(buf[:]); e != 0 {
		board.Text(e.Error())
	}
	board.Err(page.ReadAt(buf[:16], board.Input()))
	out, e := page.Encode(buf[:])
	board.Bytes(out)
	board.Output(uint32(e))
}
