// Command state reaches the exported API of core/state.
package main

import (
	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/flash"
	"github.com/runnel-fota/runnel/core/state"
	"github.com/runnel-fota/runnel/tools/tinygo/check/board"
)

var (
	area    flash.Area
	sectors state.Sectors
	rec     state.Record
	buf     [state.BufferSize]byte
	digest  [32]byte
	image   state.Image
)

func main() {
	var err error
	area, err = flash.NewArea(board.Flash(), 0, board.Input())
	board.Err(err)
	sectors, err = state.NewSectors(area)
	board.Err(err)
	board.Err(sectors.Load(&rec, buf[:]))
	board.Fill(digest[:])
	rec.MarkBad(&digest, board.Input())
	board.Flag(rec.IsBad(&digest, board.Input()))
	rec.Spend(7)
	board.Flag(rec.ForgetBad(&digest))
	rec.Floors.Raise(&rec.Trial.Image)
	board.Flag(rec.Trial.Image.Newer(&image))
	image.Set(&rec.Trial.Image)
	rec.Confirmed.Set(&image, boot.Slot(board.Input()))
	rec.Previous.Copy(&rec.Confirmed)
	board.Flag(rec.Previous.None())
	board.Err(sectors.SetTrust(board.Input() % sectors.TrustRoom()))
	board.Output(sectors.TrustLen())
	board.Err(sectors.ReadAt(digest[:], board.Input()))
	for {
		done, err := sectors.Save(&rec, buf[:])
		board.Err(err)
		if done || err != nil {
			break
		}
	}
	fields()
	board.Text(state.Error(board.Input()).Error())
}

func fields() {
	f := state.Fields{P: buf[:], Read: board.Bool()}
	f.U8(&rec.BadNext)
	f.U16(&image.TrialSeconds)
	f.U32(&rec.BootCount)
	f.U64(&rec.NonceLimit)
	f.Flag(&image.NoContact, 1)
	f.Skip(1)
	f.Bytes(image.Digest[:])
}
