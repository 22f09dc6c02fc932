// Command v1 reaches the exported API of core/wire/v1.
package main

import (
	v1 "github.com/runnel-fota/runnel/core/wire/v1"
	"github.com/runnel-fota/runnel/tools/tinygo/check/board"
)

var (
	wire    v1.Wire
	answer  v1.Answer
	request [512]byte
	chunk   [1024]byte
	piece   [64]byte
	sum     [32]byte
)

func main() {
	board.Fill(piece[:])
	wire.SetIdentity(v1.Identity{ID: "device", Signed: board.Bool(), Key: piece[:32]})
	wire.Hash().Reset()
	board.Text(wire.ID())

	send(wire.Manifest(request[:], nonce(), board.Input()))
	receive(v1.KindManifest)
	board.Output(answer.Offer.Chunks())

	send(wire.Chunk(request[:], board.Input(), nonce(), board.Input()))
	receive(v1.KindChunk)
	wire.ChunkMAC(chunk[:answer.Length], &sum)
	board.Bytes(sum[:])

	send(wire.RollbackStatus(request[:], nonce(), board.Input()))
	receive(v1.KindRollback)

	report := v1.Report{
		HasChunks:     board.Bool(),
		ChunkReceived: board.Input(),
		TotalChunks:   board.Input(),
		HasProgress:   board.Bool(),
		Progress:      uint8(board.Input()),
		HasVerified:   board.Bool(),
		Verified:      board.Bool(),
		BootStatus:    v1.BootStatus(board.Input()),
		NewVersion:    piece[:],
		HasBootCount:  board.Bool(),
		BootCount:     board.Input(),
		Rollback:      board.Bool(),
		Error:         v1.Error(board.Input()).Error(),
	}
	board.Flag(wire.Signed())
	send(wire.Report(request[:], &report, nonce(), board.Input()))
	receive(v1.KindAck)
}

func nonce() uint64 { return uint64(board.Input())<<32 | uint64(board.Input()) }

func send(r v1.Request, err error) {
	board.Err(err)
	board.Text(r.Method)
	board.Text(r.DeviceID)
	board.Bytes(r.Target)
	board.Bytes(r.Nonce)
	board.Bytes(r.Timestamp)
	board.Bytes(r.MAC)
	board.Bytes(r.Body)
}

func receive(k v1.Kind) {
	answer.Begin(k, chunk[:])
	for board.Bool() {
		board.Fill(piece[:])
		board.Err(answer.Feed(piece[:]))
	}
	board.Err(answer.End())
	board.Bytes(answer.Hash[:])
	board.Flag(answer.Success)
	board.Flag(answer.Rollback)
	board.Output(answer.Number)
	board.Output(answer.Size)
}
