package native

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"net/http"

	reasons "github.com/runnel-fota/runnel/core/device"
	core "github.com/runnel-fota/runnel/core/wire/native"
	"github.com/runnel-fota/runnel/internal/fleet"
)

var states = map[core.State]fleet.DeploymentState{
	core.StateDownloading: fleet.StateDownloading,
	core.StateVerifying:   fleet.StateVerifying,
	core.StateRebooting:   fleet.StateRebooting,
	core.StateTrial:       fleet.StateTrial,
	core.StateConfirmed:   fleet.StateConfirmed,
	core.StateReverted:    fleet.StateReverted,
	core.StateUnproven:    fleet.StateUnproven,
	core.StateFailed:      fleet.StateFailed,
	core.StateCancelled:   fleet.StateCancelled,
	core.StateSkipped:     fleet.StateSkipped,
}

// report answers when the report is durable: that is what an acknowledgement says.
func (s *Server) report(r *http.Request, body, buf []byte) ([]byte, error) {
	ctx := r.Context()
	var m core.Report
	c, err := s.identify(ctx, body, func(mac core.MAC) core.Error { return m.Decode(body, mac) })
	if err != nil {
		return nil, err
	}
	now := s.c.Now()
	rep := reportOf(&m)
	var t taken
	if c.dev, t, err = s.devices.take(ctx, c.dev, m.Nonce, 0); err != nil {
		return nil, err
	}
	// Of the same report twice at once either may be the first in the store, which knows both.
	rep.Stale = !t.fresh && s.c.Replicas == nil
	if rep.Nonce > maxNonce {
		rep.Nonce = maxNonce
	}
	err = s.c.Devices.TakeReport(context.WithoutCancel(ctx), rep, now)
	if t.fresh {
		// One that was known already changed nothing: its nonce is written behind.
		c.dev.done(err == nil && s.c.Replicas == nil, now)
	}
	switch fleet.CodeOf(err) {
	case "":
	case fleet.CodeNotFound, fleet.CodeUnauthenticated:
		return nil, errWho
	default:
		return nil, err
	}
	ack := core.Ack{Device: m.Device, Nonce: m.Nonce, Boot: m.Boot, Number: m.Number}
	answer, e := ack.Encode(buf, softMAC(c.key))
	if e != 0 {
		return nil, &fleet.Error{Code: fleet.CodeInternal, Message: "the acknowledgement can't be encoded", Err: e}
	}
	return answer, nil
}

func reportOf(m *core.Report) fleet.NativeReport {
	rep := fleet.NativeReport{Device: string(m.Device), Key: m.Key, Nonce: m.Nonce, Boot: m.Boot, Number: m.Number, Epoch: m.Epoch, Sequence: m.Sequence,
		Image: fleet.Digest(m.Digest), State: states[m.State], Bytes: m.Bytes, Reason: reasonText(m.Reason), Class: classOf(m.Reason), DerivedFailed: derivedFailed(m.Reason)}
	if m.State == core.StateFailed && (onTheWay(m.Reason) || rep.DerivedFailed) {
		rep.State = fleet.StateDownloading
	}
	be := binary.BigEndian
	b := be.AppendUint32(nil, m.Epoch)
	b = be.AppendUint32(b, m.Sequence)
	b = append(b, m.Digest...)
	b = append(b, byte(m.State))
	b = be.AppendUint16(b, m.Reason)
	b = be.AppendUint32(b, m.Bytes)
	rep.Content = sha256.Sum256(b)
	return rep
}

// onTheWay says whether a try failed for what lies between the server and the
// device, a cache that poisons or a route that gives nothing. That is no verdict
// on the release: were it one, whoever holds the route would end the device's
// updates until an operator orders a retry.
func onTheWay(n uint16) bool {
	return n == uint16(reasons.ReasonRecord) || n == uint16(reasons.ReasonStream)
}

// derivedFailed says whether a derived stream was of no use to a device, which goes on with
// the raw one: no verdict on the release either.
func derivedFailed(n uint16) bool {
	switch n {
	case uint16(reasons.ReasonSheet), uint16(reasons.ReasonPatchMemory), uint16(reasons.ReasonBase), uint16(reasons.ReasonPatch):
		return true
	}
	return false
}

// classOf is what kind of failure a reason is; what is not named is the release's.
func classOf(n uint16) fleet.Class {
	if n > math.MaxUint8 {
		return fleet.ClassNone
	}
	switch reasons.Reason(n) {
	case reasons.ReasonCrashed, reasons.ReasonNotVerified, reasons.ReasonSelfTest, reasons.ReasonBootsSpent, reasons.ReasonNotBootable, reasons.ReasonImage:
		return fleet.ClassImage
	case reasons.ReasonFlashErase, reasons.ReasonFlashProgram, reasons.ReasonFlashRead, reasons.ReasonDamaged, reasons.ReasonBootRecord, reasons.ReasonState, reasons.ReasonJournal:
		return fleet.ClassFlash
	case reasons.ReasonKeyList, reasons.ReasonSignature, reasons.ReasonEpoch, reasons.ReasonSecurity, reasons.ReasonTrust:
		return fleet.ClassRefused
	case reasons.ReasonOrdered:
		return fleet.ClassOrdered
	}
	return fleet.ClassNone
}

// reasonText is the updater's word for a number, with the number.
func reasonText(n uint16) string {
	if n == 0 {
		return ""
	}
	if n <= math.MaxUint8 {
		if text := reasons.Reason(n).String(); text != "" && text != reasons.Reason(math.MaxUint8).String() {
			return fmt.Sprintf("%s (reason %d)", text, n)
		}
	}
	return fmt.Sprintf("reason %d", n)
}
