package manifest

import "github.com/runnel-fota/runnel/core/digest"

// Acceptance decides whether a key list follows the one that is held, by the
// rules of docs/format/keylist.md, a signature or a share of one a Step. What is
// held comes from a trust store: of the list before, or of the roots that were
// baked in.
type Acceptance struct {
	// Trust is the header of the store that is held, from Begin on.
	Trust Trust
	// Same says that the list is the one that is held: there is nothing to do.
	Same bool

	check check
	list  *KeyList
	store TrustReader
	buf   [TrustHeaderSize]byte
	next  uint8  // root that is looked at next: of the store, then of the list
	old   uint32 // roots of the store that have signed, as bits
	own   uint32 // roots of the list that have signed, as bits
	err   Error
	state uint8
}

const (
	acceptFailed uint8 = iota
	acceptSame
	acceptOpen
)

// Begin reads the payload into l and judges numbers and roots. e, l and the
// store must stay as they are until the last Step. Nothing in l is believed
// before that.
func (a *Acceptance) Begin(e *Envelope, l *KeyList, store TrustReader) Error {
	*a = Acceptance{list: l, store: store}
	a.check.e, a.check.kind = e, KindKeys
	a.err = a.begin(e, l)
	if a.err == 0 {
		a.state = acceptOpen
		if a.Same {
			a.state = acceptSame
		}
	}
	return a.err
}

func (a *Acceptance) begin(e *Envelope, l *KeyList) Error {
	if err := a.Trust.Load(a.store, a.buf[:]); err != 0 {
		return err
	}
	if err := l.Parse(e.Payload); err != 0 {
		return err
	}
	t := &a.Trust
	switch {
	case l.Version < t.Version:
		return ErrOldList
	case l.Version == t.Version:
		// The same bytes were accepted once: no signature has to be checked again.
		var s digest.SHA256
		var sum [digest.Size]byte
		s.Reset()
		s.Write(e.Payload)
		s.Sum(&sum)
		if sum != t.Digest {
			return ErrOtherList
		}
		a.Same = true
		return 0
	case l.Generation == t.Generation:
		same, err := a.sameRoots()
		if err == 0 && !same {
			err = ErrRoots
		}
		return err
	case t.Generation == 1<<32-1 || l.Generation != t.Generation+1:
		return ErrGeneration
	}
	return 0
}

// sameRoots: the list has the roots and the m of the store, in any order. No
// root is in a list twice, so that counting is enough.
func (a *Acceptance) sameRoots() (bool, Error) {
	if a.list.M != a.Trust.M || a.list.NRoots != a.Trust.Roots {
		return false, 0
	}
	var k Key
	for i := uint8(0); i < a.Trust.Roots; i++ {
		if err := k.record(a.store, a.buf[:RecordSize], i); err != 0 {
			return false, err
		}
		if a.among(&k) == 0 {
			return false, 0
		}
	}
	return true, 0
}

// among is the bit of a key among the roots of the list, 0 if it is none.
func (a *Acceptance) among(k *Key) uint32 {
	var r Key
	var roots Keys
	roots.begin(a.list.roots, true)
	for bit := uint32(1); roots.Next(&r); bit <<= 1 {
		if r.Alg == k.Alg && equal(r.Public, k.Public) {
			return bit
		}
	}
	return 0
}

// Step checks one signature at most, or does one Step of v if that is a
// StepVerifier. Call it until it is done, with the same v; the list counts with
// done and no error.
func (a *Acceptance) Step(v Verifier) (done bool, err Error) {
	switch a.state {
	case acceptSame:
		return true, 0
	case acceptFailed:
		if a.err == 0 {
			a.err = ErrTrust // no Begin
		}
		return true, a.err
	}
	if a.enough() {
		return true, 0
	}
	for a.check.sig < a.check.e.N {
		for a.next < a.Trust.Roots+a.list.NRoots {
			checked, err := a.one(v)
			if err != 0 {
				return true, err
			}
			if checked {
				return a.enough(), 0
			}
		}
		a.next = 0
		a.check.sig++
	}
	if count(a.old) < a.Trust.M {
		return true, ErrOldQuorum
	}
	return true, ErrNewQuorum
}

// one looks at the next root for the present signature.
func (a *Acceptance) one(v Verifier) (checked bool, err Error) {
	i := a.next
	a.next++
	var k Key
	var bit uint32
	held := i < a.Trust.Roots
	if held {
		if err := k.record(a.store, a.buf[:RecordSize], i); err != 0 {
			return false, err
		}
		if bit = 1 << i; a.old&bit != 0 {
			return false, 0
		}
	} else {
		i -= a.Trust.Roots
		var roots Keys
		roots.begin(a.list.roots, true)
		for j := uint8(0); j <= i; j++ {
			roots.Next(&k)
		}
		if bit = 1 << i; a.own&bit != 0 {
			return false, 0
		}
	}
	if !a.check.e.Sigs[a.check.sig].by(k.Alg, k.Public) {
		return false, 0
	}
	done, ok := a.check.verify(v, &k)
	if !done {
		a.next-- // the same one again
	}
	if !ok {
		return true, 0
	}
	// A key that is in both counts for both.
	if held {
		a.old |= bit
		bit = a.among(&k)
	}
	a.own |= bit
	a.next = 0
	a.check.sig++
	return true, 0
}

// enough: the old quorum, and for a new generation the new one too. Within a
// generation they are the same roots and the same m.
func (a *Acceptance) enough() bool {
	return count(a.old) >= a.Trust.M && count(a.own) >= a.list.M
}

func count(bits uint32) uint8 {
	n := uint8(0)
	for ; bits != 0; bits &= bits - 1 {
		n++
	}
	return n
}
