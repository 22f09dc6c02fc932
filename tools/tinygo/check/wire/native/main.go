// Command native reaches the exported API of core/wire/native, both sides of it.
package main

import (
	"github.com/runnel-fota/runnel/core/digest"
	"github.com/runnel-fota/runnel/core/wire/native"
	"github.com/runnel-fota/runnel/tools/tinygo/check/board"
)

var (
	run    digest.SHA256
	keys   native.Keys
	soft   = native.SoftMAC{Keys: &keys, Run: &run}
	chip   peripheral
	body   [native.MaxBody]byte
	bytes  [64]byte
	secret [native.SecretSize]byte
	nonce  [native.NonceSize]byte

	poll     native.Poll
	answer   native.Answer
	report   native.Report
	ack      native.Ack
	enrol    native.Enrol
	enrolled native.Enrolled
)

// peripheral is a second MAC, which holds its caller's buffer as DMA does.
type peripheral struct{ p []byte }

func (c *peripheral) Begin(kind native.Message) {
	board.Text(kind.Label())
	board.Flag(kind.Answers())
}

func (c *peripheral) Write(p []byte) { c.p = p }

func (c *peripheral) Sum(out []byte) { c.p = out }

func (c *peripheral) Is(mac []byte) bool {
	c.p = mac
	return board.Bool()
}

func main() {
	board.Fill(secret[:])
	board.Fill(bytes[:])
	keys.Derive(&secret, &run)
	keys.DeriveToken(&secret, &run)
	native.DeviceSecret(&secret, &nonce, &nonce, bytes[:], &run, &secret)
	board.Bytes(secret[:])
	soft.Begin(native.Message(board.Input()))
	soft.Write(bytes[:])
	soft.Sum(secret[:])
	board.Flag(soft.Is(secret[:]))

	var mac native.MAC = &soft
	if board.Bool() {
		mac = &chip
	}
	device(mac)
	server(mac)
}

func device(mac native.MAC) {
	poll.Device, poll.Hardware = bytes[:8], bytes[:board.Input()&31]
	poll.Nonce = uint64(board.Input())
	poll.Slots[0], poll.SlotCount = board.Input(), 2
	health := native.Health{FreeRAM: board.Input(), Battery: uint8(board.Input())}
	poll.Health = health.Encode(bytes[:native.MaxHealth])
	if board.Bool() {
		native.MakesDerived()
		poll.Derived = native.Derived{Version: uint8(board.Input()), Profiles: uint8(board.Input()), RAM: board.Input()}
		board.Flag(poll.Derived.Takes(uint8(board.Input())))
	}
	send(poll.Encode(body[:], mac))
	check(answer.Decode(receive(), mac, bytes[:8], poll.Nonce, poll.Random))
	board.Bytes(answer.Offer.Stream)
	board.Bytes(answer.Offer.Sheet)

	report.Device, report.Digest = bytes[:8], secret[:]
	send(report.Encode(body[:], mac))
	check(ack.Decode(receive(), mac, bytes[:8], report.Nonce, report.Boot, report.Number))

	enrol.Token, enrol.Device, enrol.Nonce = bytes[:4], bytes[:8], nonce[:]
	send(enrol.Encode(body[:], mac))
	check(enrolled.Decode(receive(), mac, bytes[:8], &nonce))
}

func server(mac native.MAC) {
	name, key, err := native.Peek(receive())
	board.Bytes(name)
	board.Output(uint32(key))
	check(err)
	check(poll.Decode(receive(), mac))
	send(answer.Encode(body[:], mac))
	check(report.Decode(receive(), mac))
	send(ack.Encode(body[:], mac))
	token, err := native.PeekToken(receive())
	board.Bytes(token)
	check(err)
	check(enrol.Decode(receive(), mac))
	send(enrolled.Encode(body[:], mac))
}

func receive() []byte {
	board.Fill(body[:])
	return body[:board.Input()%uint32(len(body))]
}

func send(p []byte, err native.Error) {
	board.Bytes(p)
	check(err)
}

func check(err native.Error) { board.Text(err.Error()) }
