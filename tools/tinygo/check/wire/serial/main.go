// Command serial reaches the exported API of core/wire/serial: the board's end of the
// line. The bridge's is for hosts.
package main

import (
	"github.com/runnel-fota/runnel/core/wire/serial"
	"github.com/runnel-fota/runnel/tools/tinygo/check/board"
)

// uart is a port in registers.
type uart struct{ last byte }

func (u *uart) Put(b byte) {
	u.last = b
	board.Output(uint32(b))
}

func (u *uart) Get(ms uint32) (byte, bool) { return byte(board.Input() + ms), board.Bool() }

// fifo is a second one, so that no call is known at build time.
type fifo struct {
	bytes [16]byte
	n     uint8
}

func (f *fifo) Put(b byte) {
	f.bytes[f.n&15] = b
	f.n++
}

func (f *fifo) Get(ms uint32) (byte, bool) { return f.bytes[ms&15], f.n != 0 }

var (
	chip   uart
	pins   fifo
	client serial.Client
	buffer [serial.MaxRead]byte
	answer [64]byte
	req    serial.Request
	head   serial.Head
	enc    serial.Encoder
	dec    serial.Decoder
)

func main() {
	client.Port = &chip
	if board.Bool() {
		client.Port = &pins
	}
	client.Nonce = board.Input()
	board.Fill(buffer[:])
	req.Target, req.Body, req.MAC = buffer[:board.Input()&255], buffer[:board.Input()&1023], buffer[:64]
	req.Nonce, req.Timestamp = buffer[:20], buffer[:10]
	req.Device = "pump-7"
	req.Ranged, req.From, req.To = board.Bool(), board.Input(), board.Input()
	board.Flag(client.Send(&req, &head))
	board.Output(uint32(head.Status) + head.RetryAfter + head.From + head.To + head.Total)
	board.Flag(head.Coded)
	n, end, ok := client.Read(buffer[:])
	board.Bytes(buffer[:n])
	board.Flag(end)
	board.Flag(ok)
	board.Flag(client.Close())
	board.Flag(client.Say(1, 2, 3, board.Input()))
	board.Output(client.Time())
	n, ok = client.Call(serial.OpHost, buffer[:4], buffer[4:16], buffer[16:], answer[:])
	board.Bytes(answer[:n])
	board.Flag(ok)
	board.Text(client.Fault.Error())

	// A frame by hand, as a program without the client would send and take one.
	enc.Begin(client.Port, serial.OpSay, 1, 2)
	enc.Write(buffer[:])
	enc.End()
	if dec.Feed(byte(board.Input()), buffer[:4], buffer[4:]) == serial.Whole {
		board.Bytes(buffer[:dec.Len()])
	}
	dec.Reset()
}
