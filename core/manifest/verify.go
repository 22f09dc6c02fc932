package manifest

// Verifier checks one signature over head followed by payload, a Sig_structure.
// alg is the key's, AlgEdDSA; the verdict is that of Go's crypto/ed25519. It
// keeps none of the slices. It is the long step of an update: 7.5 million
// instructions of a Cortex-M0 (docs/design/ed25519.md). Hence StepVerifier.
type Verifier interface {
	Verify(alg int8, key, sig, head, payload []byte) bool
}

// StepVerifier is the power of a Verifier to spread one check over many calls, so
// that a watchdog can be fed in between. Begin keeps payload alone, until the last
// Step; the verdict is the one with done. One check is under way at a time.
type StepVerifier interface {
	Verifier
	Begin(alg int8, key, sig, head, payload []byte)
	Step() (done, ok bool)
}

// check is one envelope whose signatures are checked one by one.
type check struct {
	e    *Envelope
	kind Kind
	head [HeadSize]byte // in the struct: what a Verifier is handed must not be on the stack
	sig  int            // the signature that is looked at
	open bool           // a StepVerifier is at work on it
}

// verify is called with the same key until it is done.
func (c *check) verify(v Verifier, k *Key) (done, ok bool) {
	w, steps := v.(StepVerifier)
	if c.open && steps {
		done, ok = w.Step()
		c.open = !done
		return done, done && ok
	}
	s := &c.e.Sigs[c.sig]
	head := Head(&c.head, c.kind, s.Alg, s.KeyID, len(c.e.Payload))
	if !steps {
		return true, v.Verify(k.Alg, k.Public, s.Sig, head, c.e.Payload)
	}
	w.Begin(k.Alg, k.Public, s.Sig, head, c.e.Payload)
	c.open = true
	return false, false
}

// Verification checks a manifest's or a sheet's signatures against a trust
// store, a signature or a share of one a Step. It holds one record of the store
// at a time. Signatures count by distinct keys; those by keys that are not in the
// store, or that don't verify, count nothing and do no harm.
type Verification struct {
	// Trust is the store's header, from Begin on.
	Trust Trust
	// Signers are the keys that signed, as bits, in the store's order behind the
	// roots; complete only as far as the threshold needed.
	Signers uint32

	check check
	store TrustReader
	buf   [TrustHeaderSize]byte
	roles uint8 // any of which lets a key count
	need  uint8
	got   uint8
	next  uint8 // record that is looked at next
}

// BeginManifest starts on a manifest: as many release keys must have signed as
// the product's threshold asks for. e must stay as it is until the last Step.
func (c *Verification) BeginManifest(e *Envelope, store TrustReader) Error {
	err := c.begin(e, KindManifest, store)
	c.roles, c.need = RoleRelease, c.Trust.Threshold
	return err
}

// BeginSheet starts on a stream sheet: one release or stream key is enough.
func (c *Verification) BeginSheet(e *Envelope, store TrustReader) Error {
	err := c.begin(e, KindSheet, store)
	c.roles, c.need = RoleRelease|RoleStream, 1
	return err
}

func (c *Verification) begin(e *Envelope, k Kind, store TrustReader) Error {
	*c = Verification{store: store}
	c.check.e, c.check.kind = e, k
	if err := c.Trust.Load(store, c.buf[:]); err != 0 {
		return err
	}
	c.next = c.Trust.Roots
	if c.Trust.Threshold == 0 {
		return ErrNoProduct
	}
	return 0
}

// Step checks one signature at most, or does one Step of v if that is a
// StepVerifier. Call it until it is done, with the same v; the object counts with
// done and no error. After a Begin that failed, it fails.
func (c *Verification) Step(v Verifier) (done bool, err Error) {
	if c.Trust.Threshold == 0 {
		return true, ErrNoProduct
	}
	var k Key
	for c.check.sig < c.check.e.N {
		for c.next < c.Trust.Roots+c.Trust.Keys {
			i := c.next
			c.next++
			if err := k.record(c.store, c.buf[:RecordSize], i); err != 0 {
				return true, err
			}
			bit := uint32(1) << (i - c.Trust.Roots)
			if k.Roles&c.roles == 0 || c.Signers&bit != 0 || !c.check.e.Sigs[c.check.sig].by(k.Alg, k.Public) {
				continue
			}
			done, ok := c.check.verify(v, &k)
			if !done {
				c.next = i // the same one again
			}
			if !ok {
				return false, 0
			}
			c.Signers |= bit
			c.got++
			c.next = c.Trust.Roots
			c.check.sig++
			return c.got == c.need, 0
		}
		c.next = c.Trust.Roots
		c.check.sig++
	}
	return true, ErrThreshold
}
