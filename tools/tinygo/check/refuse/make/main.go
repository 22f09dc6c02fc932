// Command make allocates a buffer whose size is known only at run time: the
// linker must refuse it, or tinygo-check proves nothing.
package main

import "github.com/runnel-fota/runnel/tools/tinygo/check/board"

var buf []byte

func main() {
	buf = make([]byte, board.Input())
	board.Bytes(buf)
}
