package ingest

import (
	"context"
	"errors"
	"fmt"

	"github.com/runnel-fota/runnel/core/manifest"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/release"
)

// The server's key lists are a chain: each follows the one before by the rules
// of a device (docs/format/keylist.md). The first one is an operator's word: the
// roots have to come by a way that is trusted already.

// trust is what the newest list says. CodeConflict where there is none.
func (s *Service) trust(ctx context.Context) (*release.Trust, error) {
	l, err := s.signed.NewestKeyList(ctx)
	if fleet.CodeOf(err) == fleet.CodeNotFound {
		return nil, &fleet.Error{Code: fleet.CodeConflict, Message: "the server holds no key list: nothing says who may sign releases",
			Hint: "give it yours with 'runnel keys publish'"}
	}
	if err != nil {
		return nil, err
	}
	t, err := s.trustIn(l.Envelope)
	if errors.Is(err, release.ErrThrowAway) {
		return nil, listError(err)
	}
	if err != nil {
		return nil, &fleet.Error{Code: fleet.CodeInternal, Message: fmt.Sprintf("the stored key list, version %d, is damaged", l.Version), Err: err}
	}
	return t, nil
}

// trustIn is what follows from a list that is trusted: it is signed by m of its
// own roots, or damaged.
func (s *Service) trustIn(envelope []byte) (*release.Trust, error) {
	e, err := release.ParseEnvelope(envelope)
	if err != nil {
		return nil, err
	}
	l, err := release.DecodeKeyList(e.Payload)
	if err != nil {
		return nil, err
	}
	t, err := release.TrustRoots(l.Generation, l.M, l.Roots...)
	if err != nil {
		return nil, err
	}
	t.ThrowAway = s.demo
	return t.Accept(envelope)
}

// AddKeyList takes an operator's key list: the first one as it is, if enough of
// its own roots signed it, and every other if it follows the newest. created is
// false for the newest itself. CodeInvalid: it is damaged or not signed by those
// who must; CodeConflict: a newer one, or another of its version, is held.
func (s *Service) AddKeyList(ctx context.Context, envelope []byte) (l fleet.KeyList, created bool, err error) {
	s.publishing.Lock()
	defer s.publishing.Unlock()
	held, err := s.signed.NewestKeyList(ctx)
	first := fleet.CodeOf(err) == fleet.CodeNotFound
	if err != nil && !first {
		return fleet.KeyList{}, false, err
	}
	var next *release.Trust
	if first {
		if next, err = s.trustIn(envelope); err != nil {
			return fleet.KeyList{}, false, listError(err)
		}
	} else {
		now, err := s.trust(ctx)
		if err != nil {
			return fleet.KeyList{}, false, err
		}
		if next, err = now.Accept(envelope); err != nil {
			return fleet.KeyList{}, false, listError(err)
		}
		if next == now {
			return held, false, nil
		}
	}
	l, err = s.addKeyList(ctx, next, held.Version)
	return l, err == nil, err
}

// addKeyList stores an accepted list. after is the version of the one before.
func (s *Service) addKeyList(ctx context.Context, t *release.Trust, after uint32) (fleet.KeyList, error) {
	l, products := listOf(t)
	return s.signed.AddKeyList(ctx, l, after, products, s.now())
}

// listOf is how an accepted list is stored, and the products that it names.
func listOf(t *release.Trust) (fleet.KeyList, []string) {
	products := make([]string, 0, len(t.List.Products))
	for i := range t.List.Products {
		products = append(products, t.List.Products[i].Name)
	}
	return fleet.KeyList{Version: t.Version, Generation: t.Generation, Envelope: t.Envelope}, products
}

// listError is the domain's error for a list that is not taken.
func listError(err error) error {
	e := &fleet.Error{Code: fleet.CodeInvalid, Message: fleet.CleanText(err.Error(), maxReason), Hint: "'runnel keys list' shows what is in it and who signed"}
	if errors.Is(err, manifest.ErrOldList) || errors.Is(err, manifest.ErrOtherList) {
		e.Code, e.Hint = fleet.CodeConflict, "make the change on top of the newest list"
	}
	if errors.Is(err, release.ErrThrowAway) {
		e.Hint = "make keys of your own: 'runnel keys init'"
	}
	return e
}
