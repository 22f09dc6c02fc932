package v1

import (
	"context"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// take takes a nonce, in memory or, where other servers share the store, there. generation is
// the catalogue's, 0 where it was not read.
func (s *Server) take(ctx context.Context, dev *device, u used) (generation int64, err error) {
	if s.c.Replicas == nil {
		return 0, dev.use(u, s.c.NonceJump, s.c.Now())
	}
	by, sure := dev.known(), false // what is in memory may be from before another server's requests
	for range takes {
		next, err := u.after(by, s.c.NonceJump)
		if err != nil {
			if sure {
				return 0, err
			}
			// Nothing is taken by that: it is read.
			by, next = fleet.V1Known{Nonce: maxNonce}, fleet.V1Known{Nonce: u.nonce, Clocked: u.clocked}
		}
		st, err := s.c.Replicas.TakeV1(ctx, fleet.V1Take{Device: dev.id, By: by, New: next, At: s.c.Now()})
		switch {
		case fleet.CodeOf(err) == fleet.CodeNotFound, err == nil && fleet.WireV1.WeakerThan(st.Wire):
			return 0, errWho
		case err != nil:
			return 0, err
		case st.Taken:
			dev.learn(next, st.Offer)
			return st.Generation, nil
		}
		by, sure = st.Known, true
	}
	return 0, fleet.Errorf(fleet.CodeBusy, "too many requests of this device at once")
}

func (d *device) known() fleet.V1Known {
	d.mu.Lock()
	defer d.mu.Unlock()
	return fleet.V1Known{Nonce: d.nonce, Clocked: d.clocked}
}

// learn notes what was read from the store with a request.
func (d *device) learn(k fleet.V1Known, o fleet.V1Offer) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.nonce, d.clocked, d.signed = k.Nonce, k.Clocked, true
	d.offer, d.asked, d.asOf = o.Release, o.Known, o.Generation
}

// setOffer notes what a poll was offered, 0 for nothing.
func (s *Server) setOffer(ctx context.Context, dev *device, release, generation int64) error {
	o := fleet.V1Offer{Known: true, Release: release, Generation: generation}
	if !dev.setOffer(o) || s.c.Replicas == nil {
		return nil
	}
	return s.c.Replicas.OfferV1(context.WithoutCancel(ctx), dev.id, o)
}
