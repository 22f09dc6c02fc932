package native

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"

	"github.com/runnel-fota/runnel/core/digest"
	core "github.com/runnel-fota/runnel/core/wire/native"
	"github.com/runnel-fota/runnel/internal/fleet"
)

var enrolStatus = map[fleet.EnrolStatus]core.EnrolStatus{
	fleet.EnrolTaken:    core.EnrolTaken,
	fleet.EnrolWaiting:  core.EnrolWaits,
	fleet.EnrolApproved: core.EnrolWaits,
	fleet.EnrolRefused:  core.EnrolRefused,
}

// enrol makes a device known by a token. Neither the token's secret nor the
// device's crosses the wire: both sides compute them.
func (s *Server) enrol(r *http.Request, body, buf []byte) ([]byte, error) {
	ctx := r.Context()
	id, e := core.PeekToken(body)
	if e != 0 {
		return nil, malformed(e)
	}
	token, secret, err := s.c.Enroller.EnrolToken(ctx, string(id))
	known := err == nil
	if !known && fleet.CodeOf(err) != fleet.CodeNotFound {
		return nil, err
	}
	// An unknown token's MAC is computed too, under the zero secret.
	var keys core.Keys
	var run digest.SHA256
	tokenSecret := [core.SecretSize]byte(secret)
	keys.DeriveToken(&tokenSecret, &run)
	var m core.Enrol
	e = m.Decode(body, softMAC(&keys))
	switch {
	case !known, e == core.ErrMAC:
		return nil, errWho
	case e != 0:
		return nil, malformed(e)
	}
	in := fleet.Enrolment{Token: token.ID, Device: string(m.Device), Hardware: fleet.HardwareText(m.Hardware)}
	copy(in.DeviceNonce[:], m.Nonce)
	out, err := s.decideEnrol(ctx, r, token, &tokenSecret, in)
	if err != nil {
		return nil, err
	}
	if out.Status == fleet.EnrolRefused {
		s.log.WarnContext(ctx, "enrolment refused", "device", out.Device, "token", token.ID, "why", out.Why)
	}
	a := core.Enrolled{Device: m.Device, Nonce: m.Nonce, ServerNonce: out.ServerNonce[:], Status: enrolStatus[out.Status]}
	answer, e := a.Encode(buf, softMAC(&keys))
	if e != 0 {
		return nil, &fleet.Error{Code: fleet.CodeInternal, Message: "the answer can't be encoded", Err: e}
	}
	return answer, nil
}

func (s *Server) decideEnrol(ctx context.Context, r *http.Request, token fleet.EnrolToken, secret *[core.SecretSize]byte, in fleet.Enrolment) (fleet.Enrolment, error) {
	if err := fleet.ValidateDeviceID(in.Device); err != nil {
		in.Status, in.Why = fleet.EnrolRefused, err.Error()
		return in, nil
	}
	if token.Shared() && !s.private(r) {
		in.Status = fleet.EnrolRefused
		in.Why = "the token is shared by several devices, and this is no TLS: whoever has it could compute their keys from a recording"
		return in, nil
	}
	var run digest.SHA256
	for range tries {
		nonce, found, err := s.c.Enroller.ServerNonce(ctx, token.ID, in.Device, in.DeviceNonce)
		if err != nil {
			return in, err
		}
		if !found {
			if _, err := io.ReadFull(s.c.Random, nonce[:]); err != nil {
				return in, fmt.Errorf("enrolment nonce: %w", err)
			}
		}
		in.ServerNonce = nonce
		var key [core.SecretSize]byte
		core.DeviceSecret(secret, &in.DeviceNonce, &in.ServerNonce, []byte(in.Device), &run, &key)
		out, err := s.c.Enroller.Enrol(context.WithoutCancel(ctx), in, fleet.Key(key), s.c.Now())
		// The same request at the same time, with another nonce of ours: that one counts.
		if fleet.CodeOf(err) != fleet.CodeConflict {
			return out, err
		}
	}
	return in, fleet.Errorf(fleet.CodeBusy, "the device enrols several times at once")
}

// private: nobody can have recorded the request on its way.
func (s *Server) private(r *http.Request) bool {
	if r.TLS != nil || s.c.TLSProxy {
		return true
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	ip := net.ParseIP(host)
	return err == nil && ip != nil && ip.IsLoopback()
}
