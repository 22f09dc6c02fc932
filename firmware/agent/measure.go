//go:build measure

package agent

import "github.com/runnel-fota/runnel/core/device"

// measuring: nothing is said from within a Step, which would wait for the line.
const measuring = true

// Micros is a clock, in microseconds; the program sets it.
var Micros func() uint32

// Longest is the longest Step of the updater, in microseconds of an emulator's clock,
// where flash takes none, and the phase that it was in. It lies in RAM under this name
// for whoever reads it from outside.
var Longest struct {
	Micros uint32
	Phase  [28]byte
}

func (a *Agent) measured() device.Need {
	phase := a.Updater.Status().Phase
	from := Micros()
	need := a.Updater.Step()
	if took := Micros() - from; took > Longest.Micros {
		Longest.Micros = took
		Longest.Phase = [len(Longest.Phase)]byte{}
		copy(Longest.Phase[:], phase)
	}
	return need
}
