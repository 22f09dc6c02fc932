package manifest

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"testing"
)

// The tests build objects with an encoder that allows everything, so that each
// defect can be made.

type (
	mp  []any // keys and values in turn
	arr []any
	raw []byte // encoded already
)

func head(major byte, n uint64) []byte {
	switch {
	case n < 24:
		return []byte{major<<5 | byte(n)}
	case n < 1<<8:
		return []byte{major<<5 | 24, byte(n)}
	case n < 1<<16:
		return binary.BigEndian.AppendUint16([]byte{major<<5 | 25}, uint16(n))
	case n < 1<<32:
		return binary.BigEndian.AppendUint32([]byte{major<<5 | 26}, uint32(n))
	}
	return binary.BigEndian.AppendUint64([]byte{major<<5 | 27}, n)
}

func enc(v any) []byte {
	switch v := v.(type) {
	case raw:
		return v
	case int:
		if v < 0 {
			return head(1, uint64(-1-v))
		}
		return head(0, uint64(v))
	case uint64:
		return head(0, v)
	case string:
		return append(head(3, uint64(len(v))), v...)
	case []byte:
		return append(head(2, uint64(len(v))), v...)
	case arr:
		p := head(4, uint64(len(v)))
		for _, x := range v {
			p = append(p, enc(x)...)
		}
		return p
	case mp:
		p := head(5, uint64(len(v)/2))
		for _, x := range v {
			p = append(p, enc(x)...)
		}
		return p
	}
	panic("no encoding")
}

// set is m with the value of a key replaced, or with the pair added at its end.
func (m mp) set(k int, v any) mp {
	c := append(mp{}, m...)
	for i := 0; i < len(c); i += 2 {
		if c[i] == k {
			c[i+1] = v
			return c
		}
	}
	return append(c, k, v)
}

// without is m without a key.
func (m mp) without(k int) mp {
	c := mp{}
	for i := 0; i < len(m); i += 2 {
		if m[i] != k {
			c = append(c, m[i], m[i+1])
		}
	}
	return c
}

// testKey is the i-th key of a fixed series. Test keys: everybody has them.
func testKey(i int) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte{'t', 'e', 's', 't', byte(i)})
	return ed25519.NewKeyFromSeed(seed[:])
}

func public(i int) []byte { return testKey(i).Public().(ed25519.PublicKey) }

func keyID(i int) []byte {
	var id [KeyIDSize]byte
	KeyID(public(i), &id)
	return id[:]
}

// seal makes an envelope with signatures by the keys.
func seal(kind Kind, payload []byte, keys ...int) []byte {
	return sealAs(0x27, kind, payload, keys...)
}

// sealAs names another algorithm (encoded) in what is signed.
func sealAs(alg byte, kind Kind, payload []byte, keys ...int) []byte {
	sigs := arr{}
	for _, k := range keys {
		protected := append([]byte{0xA2, 1, alg, 4, 0x48}, keyID(k)...)
		s := enc(arr{"Signature", []byte{}, protected, []byte(kind.Label()), payload})
		sigs = append(sigs, arr{protected, mp{}, ed25519.Sign(testKey(k), s)})
	}
	return wrap(payload, sigs)
}

func wrap(payload []byte, sigs any) []byte {
	return append([]byte{0xD8, 0x62}, enc(arr{[]byte{}, mp{}, payload, sigs})...)
}

// counter is Ed25519 that counts.
type counter struct{ n int }

func (c *counter) Verify(alg int8, key, sig, head, payload []byte) bool {
	c.n++
	if alg != AlgEdDSA || len(head) > HeadSize {
		return false
	}
	return ed25519.Verify(key, append(bytes.Clone(head), payload...), sig)
}

// inSteps is a StepVerifier: a counter that takes its time. It says ok before it
// is done, which must count nothing.
type inSteps struct {
	counter
	alg                int8
	key, sig, head, in []byte
	left               int
}

const stepsOfOne = 3

func (s *inSteps) Verify(int8, []byte, []byte, []byte, []byte) bool { panic("in one call") }

// Begin copies what it may not keep.
func (s *inSteps) Begin(alg int8, key, sig, head, payload []byte) {
	if s.left != 0 {
		panic("Begin before the last check was done")
	}
	s.alg, s.in, s.left = alg, payload, stepsOfOne
	s.key, s.sig, s.head = bytes.Clone(key), bytes.Clone(sig), bytes.Clone(head)
}

func (s *inSteps) Step() (done, ok bool) {
	if s.left--; s.left > 0 {
		return false, true
	}
	return true, s.counter.Verify(s.alg, s.key, s.sig, s.head, s.in)
}

// memory is a trust store in RAM.
type memory []byte

func (m memory) ReadAt(p []byte, off uint32) error {
	if int(off)+len(p) > len(m) {
		return ErrTrust
	}
	copy(p, m[off:])
	return nil
}

func rootsOf(keys ...int) arr {
	a := arr{}
	for _, k := range keys {
		a = append(a, mp{0, -8, 1, public(k)})
	}
	return a
}

// listOf is a list with the roots, release key 10, and stream key 20.
func listOf(version, generation, m int, roots ...int) mp {
	return mp{0, version, 1, generation, 2, m, 3, rootsOf(roots...),
		4, arr{mp{0, -8, 1, public(10), 2, 1}, mp{0, -8, 1, public(20), 2, 2, 3, arr{"acme/pump"}}},
		5, arr{mp{0, "acme/pump", 1, 1, 2, 3, 3, 4}}}
}

func baked(generation uint32, m uint8, roots ...int) memory {
	t := Trust{Generation: generation, M: m, Roots: uint8(len(roots))}
	p := make([]byte, t.Size())
	t.Put(p)
	for i, r := range roots {
		k := Key{Alg: AlgEdDSA, Public: public(r)}
		k.PutRecord(p[TrustHeaderSize+i*RecordSize:])
	}
	return p
}

func storeOf(t *testing.T, list []byte, product string) memory {
	t.Helper()
	var l KeyList
	if err := l.Parse(list); err != 0 {
		t.Fatalf("key list: %v at %d", err, l.Offset)
	}
	p := make([]byte, MaxTrust)
	n, err := Compact(p, &l, []byte(product))
	if err != 0 {
		t.Fatal(err)
	}
	return p[:n]
}

func goodImage() mp {
	return mp{0, "app", 1, 1, 2, 5, 3, bytes.Repeat([]byte{0xD1}, 32), 4, 100_000, 7, 1024, 8, bytes.Repeat([]byte{0xA0}, 32),
		9, 4096, 10, bytes.Repeat([]byte{0xA1}, 32)}
}

func goodManifest() mp {
	return mp{0, "acme/pump", 1, arr{[]byte("esp32c3"), []byte{1, 2}}, 2, "1.2.3", 3, 3, 4, 7, 5, 4, 6, arr{goodImage()},
		7, mp{0, 1, 1, 300}, -1, 1_700_000_000}
}

func goodSheet() mp {
	return mp{0, bytes.Repeat([]byte{0xA0}, 32), 1, 3, 2, 1, 3, 40_000, 4, bytes.Repeat([]byte{0xB0}, 32), 5, 90_000, 6, 5_000, 7, 1024,
		8, bytes.Repeat([]byte{0xC0}, 32)}
}
