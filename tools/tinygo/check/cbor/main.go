// Command cbor reaches the exported API of core/cbor.
package main

import (
	"github.com/runnel-fota/runnel/core/cbor"
	"github.com/runnel-fota/runnel/tools/tinygo/check/board"
)

var (
	r    cbor.Reader
	w    cbor.Writer
	text [64]byte
	buf  [256]byte
)

func main() {
	board.Fill(buf[:])
	r.Begin(buf[:])
	r.Tag(uint64(board.Input()))
	for n := r.Array(); n > 0; n-- {
		read()
	}
	r.End()
	r.Fail(cbor.Error(board.Input()))
	board.Text(r.Err().Error())
	board.Output(uint32(r.Offset()))

	board.Fill(text[:])
	w.Begin(buf[:])
	w.Tag(uint64(board.Input()))
	w.Array(int(board.Input()))
	for board.Bool() {
		write()
	}
	p, err := w.Done()
	board.Bytes(p)
	board.Err(err)
}

func read() {
	from := r.Pos()
	for n := r.Map(); n > 0; n-- {
		switch k := r.Key(); k {
		case 0:
			board.Output(uint32(r.Uint(uint64(board.Input()))))
			board.Output(r.Uint32(board.Input()))
		case 1:
			board.Output(uint32(r.Int()))
		case 2:
			board.Bytes(r.Bytes(int(board.Input())))
		case 3:
			board.Bytes(r.Text(int(board.Input())))
		case 4:
			board.Flag(r.Bool())
		case 5:
			board.Bytes(r.Fixed(int(board.Input())))
		case 6:
			r.Skip()
		default:
			r.Unknown(k)
		}
	}
	board.Bytes(r.Raw(from))
}

func write() {
	w.Map(int(board.Input()))
	w.Key(int(board.Input()))
	w.Uint(uint64(board.Input()))
	w.Key(int(board.Input()))
	w.Uint32(board.Input())
	w.Key(int(board.Input()))
	w.Int(int64(board.Input()))
	w.Key(int(board.Input()))
	w.Bytes(text[:])
	w.Key(int(board.Input()))
	w.Text("text")
	w.Key(int(board.Input()))
	w.TextBytes(text[:])
	w.Key(int(board.Input()))
	w.Bool(board.Bool())
	w.Raw(text[:])
}
