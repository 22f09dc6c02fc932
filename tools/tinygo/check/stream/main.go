// Command stream reaches the exported API of core/stream.
package main

import (
	"github.com/runnel-fota/runnel/core/digest"
	"github.com/runnel-fota/runnel/core/flash"
	"github.com/runnel-fota/runnel/core/stream"
	"github.com/runnel-fota/runnel/tools/tinygo/check/board"
)

var (
	verifier stream.Verifier
	walk     stream.Walk
	hash     digest.SHA256
	slot     flash.Area
	root     [stream.HashSize]byte
	next     [stream.HashSize]byte
	record   [1024 + stream.HashSize]byte
)

// held is a second Source, which keeps its caller's buffer.
type held struct{ p []byte }

func (s *held) ReadAt(p []byte, off uint32) error {
	s.p = p
	board.Fill(s.p)
	return nil
}

var other held

func main() {
	shape := stream.Shape{Size: board.Input(), Chunk: board.Input()}
	board.Flag(shape.Valid())
	board.Output(shape.Records())
	i := board.Input()
	board.Output(uint32(shape.Start(i)))
	board.Output(shape.ChunkLen(i))
	board.Output(shape.RecordLen(i))
	board.Output(uint32(shape.FileLen()))
	shape.Begin(&hash, i)
	stream.Hash(&hash, shape, i, record[:], next[:], &root)

	board.Err(verifier.Begin(shape, &root))
	for board.Bool() {
		board.Fill(record[:])
		board.Text(verifier.Accept(record[:board.Input()%uint32(len(record))], &hash).Error())
	}
	board.Flag(verifier.Done())
	board.Output(verifier.Index())

	var err error
	slot, err = flash.NewArea(board.Flash(), 0, board.Input())
	board.Err(err)
	verifier.Expected(&next)
	board.Err(verifier.GoOn(i, &next))
	board.Err(verifier.Resume(i, &next))
	board.Err(verifier.Walk(&walk))
	var src stream.Source = &slot
	if board.Bool() {
		src = &other
	}
	for {
		done, err := walk.Step(src, record[:], &hash)
		board.Err(err)
		board.Output(walk.Left())
		if done {
			break
		}
	}
	off, n := walk.Next(board.Input())
	board.Output(off)
	board.Flag(walk.Take(record[:n%uint32(len(record))], &hash))
	board.Flag(verifier.Prove(&walk, &root))
	board.Err(walk.Begin(shape, i, &next))
	board.Flag(walk.Proven(&root))
}
