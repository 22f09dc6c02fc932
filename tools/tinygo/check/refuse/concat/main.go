// Command concat joins two strings: the linker must refuse it.
package main

import "github.com/runnel-fota/runnel/tools/tinygo/check/board"

var text = "slot "

func main() {
	for board.Bool() {
		text += "x"
	}
	board.Text(text)
}
