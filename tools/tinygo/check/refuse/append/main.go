// Command append grows a slice: the linker must refuse it.
package main

import "github.com/runnel-fota/runnel/tools/tinygo/check/board"

var list []byte

func main() {
	for board.Bool() {
		list = append(list, byte(board.Input()))
	}
	board.Bytes(list)
}
