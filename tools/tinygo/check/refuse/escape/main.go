// Command escape hands a local array to a method of an interface: it moves to
// the heap, so the linker must refuse it. Such buffers belong into a struct.
package main

import "github.com/runnel-fota/runnel/tools/tinygo/check/board"

func main() {
	var local [64]byte
	board.Err(board.Flash().ReadAt(local[:], board.Input()))
	board.Bytes(local[:])
}
