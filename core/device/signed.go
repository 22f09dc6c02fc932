package device

import (
	"github.com/runnel-fota/runnel/core/manifest"
	"github.com/runnel-fota/runnel/core/wire/native"
)

// Signed is profile signed: manifests are believed by the signatures of release keys,
// which a key list names that the device's own roots stand for. It holds the room for
// judging both, for one device alone.
type Signed struct {
	verifier manifest.Verifier
	roots    manifest.TrustReader
	store    TrustStore

	lists   uint8 // key lists fetched since the last poll that led on
	rotated bool  // there is a key list of a newer generation

	list       manifest.KeyList
	acceptance manifest.Acceptance
	signatures manifest.Verification
}

// TrustStore is the power of a Store to keep a trust store beside its record.
// state.Sectors has it.
type TrustStore interface {
	manifest.TrustReader
	// TrustLen in bytes; 0: none.
	TrustLen() uint32
	// SetTrust has the next save take the first n bytes of its buffer as the trust store.
	SetTrust(n uint32) error
}

// NewSigned takes the signature check and the trust store that was baked in: that
// counts while the Store, which must be a TrustStore, has none. Neither may be nil:
// there is no trust on first use.
func NewSigned(s *Signed, v manifest.Verifier, roots manifest.TrustReader) error {
	*s = Signed{}
	if v == nil || roots == nil {
		return ErrTrust
	}
	s.verifier, s.roots = v, roots
	return nil
}

// Profile is for the NativeConfig, after NewSigned. Of a Signed which that refused, or
// of nil, it is the zero Profile.
func (s *Signed) Profile() Profile {
	if s == nil || s.verifier == nil || s.roots == nil {
		return Profile{}
	}
	return Profile{by: (*signed)(nil), name: native.ProfileSigned, signed: s}
}

type signed struct{} // as overNative: a nil pointer

func (*signed) attach(n *Native, u *Updater) error {
	s := n.c.Profile.signed
	store, ok := u.c.Store.(TrustStore)
	if !ok {
		return ErrTrust
	}
	s.store = store
	return nil
}

// read is where the trust store is read from: the Store's, or the baked one.
func (s *Signed) read() manifest.TrustReader {
	if s.store.TrustLen() > 0 {
		return s.store
	}
	return s.roots
}

func (*signed) hold(n *Native, u *Updater) bool {
	s := n.c.Profile.signed
	t := &s.signatures.Trust // free between two manifests
	if t.Load(s.read(), u.buf) != 0 {
		return false
	}
	n.held, n.heldGen = t.Version, t.Generation
	return true
}

//go:noinline
func (*signed) behind(n *Native, u *Updater, version, generation uint32) bool {
	s := n.c.Profile.signed
	s.rotated = generation > n.heldGen
	if !s.rotated && version <= n.held {
		s.lists = 0
		return false
	}
	u.hangUp()
	n.step = stepList
	if s.lists++; s.lists > maxLists {
		u.blame(ReasonKeyList)
		s.lists = 0
		n.leave(u)
	}
	return true
}

//go:noinline
func (*signed) list(n *Native, u *Updater) Need {
	s := n.c.Profile.signed
	switch {
	case n.step == stepAccept:
		s.accept(n, u)
	case u.io.state == ioNone:
		t := text{buf: u.buf}
		t.add(listTarget)
		if s.rotated {
			t.number(n.heldGen + 1) // a device goes from generation to generation
		} else {
			t.add("latest")
		}
		return n.get(u, t.bytes(), len(u.buf))
	default:
		s.got(n, u)
	}
	return Need{}
}

// got begins to judge a key list.
//
//go:noinline
func (s *Signed) got(n *Native, u *Updater) {
	if !n.ok(u) {
		n.away(u)
		return
	}
	e := &n.c.Judge.envelope
	err := e.Parse(u.in())
	if err == 0 {
		err = s.acceptance.Begin(e, &s.list, s.read())
	}
	// The envelope lies in the buffer; nothing is sent or read until it is judged.
	n.manifestLen = u.io.got
	u.hangUp()
	if err != 0 {
		s.bad(n, u)
		return
	}
	n.step = stepAccept
}

//go:noinline
func (s *Signed) accept(n *Native, u *Updater) {
	done, err := s.acceptance.Step(s.verifier)
	if !done {
		return
	}
	if err != 0 {
		s.bad(n, u)
		return
	}
	if s.acceptance.Same {
		s.bad(n, u) // a cache, or somebody, keeps the newer one back
		return
	}
	n.step = stepPoll // with the new list, ask again
	size, err := manifest.CompactInPlace(u.buf[:n.manifestLen], &n.c.Judge.envelope, &s.list, n.c.Product)
	if err != 0 || s.store.SetTrust(uint32(size)) != nil {
		s.bad(n, u)
		return
	}
	n.judgedBy = 0
	u.rec.SpentStamp, u.rec.Spent = 0, 0 // the people with roots spoke; sequences may begin anew
	u.event(EventKeyList, ReasonNone)
	u.saveThen(phasePoll, 0)
}

// bad: a key list that the device's own roots don't stand for. Nothing is taken until
// there is a right one.
func (s *Signed) bad(n *Native, u *Updater) { n.refuse(u, ReasonKeyList) }

func (*signed) begin(n *Native, k manifest.Kind) manifest.Error {
	s := n.c.Profile.signed
	if patchesMade && k == manifest.KindSheet {
		return s.signatures.BeginSheet(&n.c.Judge.envelope, s.read())
	}
	return s.signatures.BeginManifest(&n.c.Judge.envelope, s.read())
}

func (*signed) check(n *Native, f *manifest.Floors) (bool, manifest.Error) {
	s := n.c.Profile.signed
	done, err := s.signatures.Step(s.verifier)
	t := &s.signatures.Trust
	f.Listed, f.ListEpoch, f.ListFloor = true, t.Epoch, t.Floor
	return done, err
}
