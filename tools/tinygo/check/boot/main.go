// Command boot reaches the exported API of core/boot.
package main

import (
	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/digest"
	"github.com/runnel-fota/runnel/core/flash"
	"github.com/runnel-fota/runnel/tools/tinygo/check/board"
)

var (
	slot   flash.Area
	pass   boot.RawPass
	header boot.RawHeader
	hash   digest.SHA256
	raw    [boot.RawHeaderSize]byte
	piece  [64]byte

	records boot.Records
	record  boot.Record
	bytes   [boot.RecordSize]byte
)

func main() {
	judge()
	useRaw()
	useRecords()
	useStage()
}

func useRecords() {
	board.Err(boot.NewRecords(&records, &slot, boot.Slot(board.Input()), uint8(board.Input())))
	if board.Bool() {
		records.SetRoom(piece[:])
	}
	board.Err(records.Load())
	board.Output(uint32(records.Running()) + uint32(records.State(boot.Slot(board.Input()))))
	done, err := records.Step(boot.Goal(board.Input()), boot.Slot(board.Input()))
	board.Flag(done)
	board.Err(err)
}

func bootable(s boot.Slot) bool {
	return boot.VerifyRaw(&slot, board.Input()+uint32(s), &header, piece[:]) == nil
}

func useStage() {
	board.Output(uint32(boot.Start(&slot, bootable, piece[:])))
	sector, ok, err := boot.ReadRecord(&slot, &record, piece[:])
	board.Err(err)
	s, write := boot.Decide(&record, ok, bootable)
	board.Flag(write)
	board.Err(boot.WriteRecord(&slot, 1-sector, &record, piece[:]))
	board.Output(uint32(boot.Instead(&record, s, bootable)))
	board.Fill(bytes[:])
	board.Flag(record.Decode(&bytes))
	record.Encode(&bytes)
	board.Bytes(bytes[:])
}

func useRaw() {
	var err error
	slot, err = flash.NewArea(board.Flash(), 0, board.Input())
	board.Err(err)
	pass.Begin(uint16(board.Input()), board.Input(), &hash)
	for board.Bool() {
		board.Fill(piece[:])
		board.Err(pass.Write(piece[:]))
	}
	board.Err(pass.End())
	board.Flag(pass.Done())
	board.Output(pass.Header().Entry)
	board.Fill(raw[:])
	board.Err(header.Parse(&raw, board.Input()))
	board.Err(boot.VerifyRaw(&slot, board.Input(), &header, piece[:]))
	board.Err(boot.SealRaw(piece[:]))
	board.Text(boot.RawError(board.Input()).Error())
	board.Text(boot.Error(board.Input()).Error())
}

func judge() {
	e := boot.Evidence{
		Trial:         board.Bool(),
		TrialSlot:     boot.Slot(board.Input()),
		Confirming:    board.Bool(),
		Rejected:      board.Bool(),
		Running:       boot.Slot(board.Input()),
		RunningRecord: boot.RecordState(board.Input()),
		TrialRecord:   boot.RecordState(board.Input()),
		Reason:        boot.ResetReason(board.Input()),
	}
	board.Text(boot.Judge(e).String())
	board.Text(e.Reason.String())
	board.Text(e.TrialRecord.String())
}
