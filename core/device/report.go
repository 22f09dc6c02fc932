package device

import (
	"github.com/runnel-fota/runnel/core/state"
	v1 "github.com/runnel-fota/runnel/core/wire/v1"
)

// saying is what the next report is about. Its words are made when it is sent.
type saying uint8

const (
	sayProgress saying = iota
	sayVerified        // the image in flash is proven, a reboot comes
	sayFailed          // failing says why
	sayOutcome         // how the last trial ended
)

// say sends a report, then goes to p.
func (u *Updater) say(what saying, p phase) {
	u.saying, u.then = what, p
	u.enter(phaseReport)
}

// words of the report.
func (u *Updater) words() v1.Report {
	r := v1.Report{BootCount: u.rec.BootCount, HasBootCount: true}
	switch u.saying {
	case sayProgress:
		r.HasChunks, r.TotalChunks = true, u.chunks()
		r.ChunkReceived = (u.inst.written + u.rel.chunk - 1) / u.rel.chunk
		r.HasProgress, r.Progress = true, uint8(uint64(u.inst.written)*100/uint64(u.rel.Size))
	case sayVerified:
		if u.rel.chunk != restaged {
			r.HasChunks, r.ChunkReceived, r.TotalChunks = true, u.chunks(), u.chunks()
		}
		r.HasProgress, r.Progress = true, 100
		r.HasVerified, r.Verified = true, true
		r.BootStatus, r.NewVersion = v1.BootPendingReboot, u.Version()
	case sayFailed:
		r.HasVerified = badAtOnce(u.failing)
		r.Error, r.NewVersion = u.failing.String(), u.Version()
	case sayOutcome:
		im := &u.rec.Trial.Image
		r.Error = outcomeReason(u.rec.Outcome).String()
		switch u.rec.Outcome {
		case state.OutcomeConfirmed, state.OutcomeConfirmedElsewhere:
			r.HasVerified, r.Verified = true, true
			r.HasProgress, r.Progress = true, 100
			r.BootStatus, r.NewVersion = v1.BootSuccess, im.Version[:im.VersionLen]
		case state.OutcomeRevertedByOp:
			r.Rollback = true
		default:
			r.Rollback = true
			r.BootStatus, r.NewVersion = v1.BootFailed, im.Version[:im.VersionLen]
		}
	}
	return r
}
