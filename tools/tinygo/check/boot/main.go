// Command boot reaches the exported API of core/boot.
package main

import (
	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/tools/tinygo/check/board"
)

func main() {
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
