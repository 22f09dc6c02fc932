package manifest

import (
	"bytes"
	"testing"

	"github.com/runnel-fota/runnel/core/internal/chiptest"
)

func accept(t *testing.T, store TrustReader, envelope []byte, v Verifier) (*Acceptance, Error, int) {
	t.Helper()
	var e Envelope
	if err := e.Parse(envelope); err != 0 {
		t.Fatalf("envelope: %v", err)
	}
	a, l := new(Acceptance), new(KeyList)
	err := a.Begin(&e, l, store)
	c, counts := v.(*counter)
	if slow, ok := v.(*inSteps); ok {
		c, counts = &slow.counter, true
	}
	steps := 0
	for done := err != 0; !done; steps++ {
		before := 0
		if counts {
			before = c.n
		}
		done, err = a.Step(v)
		if counts && c.n-before > 1 {
			t.Fatal("a Step checked more than one signature")
		}
		if steps > 100 {
			t.Fatal("Step never ends")
		}
	}
	return a, err, steps
}

// TestAcceptance: the rules of docs/format/keylist.md, a row each.
func TestAcceptance(t *testing.T) {
	list := func(m mp, keys ...int) []byte { return seal(KindKeys, enc(m), keys...) }
	held := storeOf(t, enc(listOf(5, 2, 2, 1, 2, 3)), "acme/pump")
	other := list(listOf(5, 2, 2, 1, 2, 3).set(5, arr{}), 1, 2)
	spoiled := list(listOf(6, 2, 2, 1, 2, 3), 1, 2)
	spoiled[len(spoiled)-1] ^= 1
	cases := []struct {
		name  string
		store memory
		p     []byte
		want  Error
		same  bool
	}{
		{"1: baked roots take a first list", baked(1, 2, 1, 2, 3), list(listOf(1, 1, 2, 1, 2, 3), 3, 1), 0, false},
		{"1: any higher version", held, list(listOf(9, 2, 2, 1, 2, 3), 1, 3), 0, false},
		{"1: the roots in another order", held, list(listOf(6, 2, 2, 3, 1, 2), 1, 3), 0, false},
		{"1: m-1 roots", held, list(listOf(6, 2, 2, 1, 2, 3), 1), ErrOldQuorum, false},
		{"1: one root twice", held, list(listOf(6, 2, 2, 1, 2, 3), 1, 1), ErrOldQuorum, false},
		{"1: one root and a stranger", held, list(listOf(6, 2, 2, 1, 2, 3), 1, 9), ErrOldQuorum, false},
		{"1: release keys are no roots", held, list(listOf(6, 2, 2, 1, 2, 3), 10, 20), ErrOldQuorum, false},
		{"1: a stranger does no harm", held, list(listOf(6, 2, 2, 1, 2, 3), 9, 1, 3), 0, false},
		{"1: a wrong signature", held, spoiled, ErrOldQuorum, false},
		{"1: signed as a manifest", held, seal(KindManifest, enc(listOf(6, 2, 2, 1, 2, 3)), 1, 2), ErrOldQuorum, false},
		{"1: another root", held, list(listOf(6, 2, 2, 1, 2, 4), 1, 2), ErrRoots, false},
		{"1: one root more", held, list(listOf(6, 2, 2, 1, 2, 3, 4), 1, 2), ErrRoots, false},
		{"1: one root less", held, list(listOf(6, 2, 2, 1, 2), 1, 2), ErrRoots, false},
		{"1: another m", held, list(listOf(6, 2, 1, 1, 2, 3), 1, 2), ErrRoots, false},
		{"2: both quorums, a root in both", held, list(listOf(6, 3, 2, 1, 4, 5), 1, 2, 4), 0, false},
		{"2: both quorums, other roots", held, list(listOf(6, 3, 2, 4, 5, 6), 1, 2, 4, 5), 0, false},
		{"2: the order of signatures is free", held, list(listOf(6, 3, 2, 4, 5, 6), 4, 2, 5, 1), 0, false},
		{"2: a lower m", held, list(listOf(6, 3, 1, 1, 2, 3), 1, 2), 0, false},
		{"2: old quorum only", held, list(listOf(6, 3, 2, 4, 5, 6), 1, 2, 4), ErrNewQuorum, false},
		{"2: new quorum only", held, list(listOf(6, 3, 2, 4, 5, 6), 1, 4, 5), ErrOldQuorum, false},
		{"2: version not above", held, list(listOf(4, 3, 2, 4, 5, 6), 1, 2, 4, 5), ErrOldList, false},
		{"2: the same version", held, list(listOf(5, 3, 2, 4, 5, 6), 1, 2, 4, 5), ErrOtherList, false},
		{"3: the same list", held, list(listOf(5, 2, 2, 1, 2, 3), 1, 2), 0, true},
		{"3: the same list, signed by others", held, list(listOf(5, 2, 2, 1, 2, 3), 9), 0, true},
		{"3: the same version, other bytes", held, other, ErrOtherList, false},
		{"4: an older list", held, list(listOf(4, 2, 2, 1, 2, 3), 1, 2), ErrOldList, false},
		{"4: two generations on", held, list(listOf(6, 4, 2, 1, 2, 3), 1, 2), ErrGeneration, false},
		{"4: a generation back", held, list(listOf(6, 1, 2, 1, 2, 3), 1, 2), ErrGeneration, false},
		{"4: beyond the last generation", baked(1<<32-1, 1, 1), list(listOf(1, 1, 1, 1), 1), ErrGeneration, false},
		{"no list", held, seal(KindKeys, enc(goodManifest()), 1, 2), Error(0), false}, // any error, see below
		{"no store", nil, list(listOf(6, 2, 2, 1, 2, 3), 1, 2), ErrTrust, false},
		{"an erased store", bytes.Repeat([]byte{0xFF}, MaxTrust), list(listOf(6, 2, 2, 1, 2, 3), 1, 2), ErrTrust, false},
		{"a store that ends early", held[:TrustHeaderSize+RecordSize], list(listOf(6, 2, 2, 1, 2, 3), 1, 2), ErrTrust, false},
	}
	for _, c := range cases {
		a, err, _ := accept(t, c.store, c.p, &counter{})
		if c.name == "no list" {
			if err == 0 {
				t.Error("a manifest was taken for a key list")
			}
			continue
		}
		if err != c.want || a.Same != c.same {
			t.Errorf("%s: %v (same %v), want %v (%v)", c.name, err, a.Same, c.want, c.same)
		}
		// The same, by the same roots, where each check takes many Steps.
		b, err, _ := accept(t, c.store, c.p, &inSteps{})
		if err != c.want || b.Same != c.same || b.old != a.old || b.own != a.own {
			t.Errorf("%s, in steps: %v (same %v), want %v (%v)", c.name, err, b.Same, c.want, c.same)
		}
	}
	if _, err := new(Acceptance).Step(&counter{}); err == 0 {
		t.Error("Step without Begin accepts")
	}
}

// liar says yes to everything: the counting must not depend on it alone.
type liar struct{}

func (liar) Verify(int8, []byte, []byte, []byte, []byte) bool { return true }

func TestOneKeyCountsOnce(t *testing.T) {
	p := seal(KindKeys, enc(listOf(6, 2, 2, 1, 2, 3)), 1, 1, 1, 1)
	if _, err, _ := accept(t, storeOf(t, enc(listOf(5, 2, 2, 1, 2, 3)), ""), p, liar{}); err != ErrOldQuorum {
		t.Errorf("%v", err)
	}
	// Nor does it cost more than one check, which is the long step of an update.
	var c counter
	if accept(t, storeOf(t, enc(listOf(5, 2, 2, 1, 2, 3)), ""), p, &c); c.n != 1 {
		t.Errorf("%d checks for one key", c.n)
	}
	var slow inSteps
	if accept(t, storeOf(t, enc(listOf(5, 2, 2, 1, 2, 3)), ""), p, &slow); slow.n != 1 {
		t.Errorf("%d checks for one key, in steps", slow.n)
	}
}

func verify(t *testing.T, store memory, p []byte, kind Kind, v Verifier, c *counter) (*Verification, Error, int) {
	t.Helper()
	var e Envelope
	if err := e.Parse(p); err != 0 {
		t.Fatalf("envelope: %v", err)
	}
	var o Verification
	begin := o.BeginManifest
	if kind == KindSheet {
		begin = o.BeginSheet
	}
	err := begin(&e, store)
	steps := 0
	for done := err != 0; !done; steps++ {
		before := c.n
		if done, err = o.Step(v); c.n-before > 1 {
			t.Fatal("a Step checked more than one signature")
		}
		if steps > 200 {
			t.Fatal("Step never ends")
		}
	}
	return &o, err, steps
}

func TestVerification(t *testing.T) {
	key := func(i, roles int, products ...any) mp {
		m := mp{0, -8, 1, public(i), 2, roles}
		if products != nil {
			m = append(m, 3, arr(products))
		}
		return m
	}
	list := enc(listOf(1, 1, 1, 1).
		set(4, arr{key(10, 1), key(11, 1, "acme/pump"), key(12, 1, "acme/valve"), key(13, 3), key(20, 2), key(21, 2, "acme/valve")}).
		set(5, arr{mp{0, "acme/pump", 1, 2, 2, 3, 3, 4}, mp{0, "acme/valve", 1, 1, 2, 0, 3, 0}}))
	pump, valve := storeOf(t, list, "acme/pump"), storeOf(t, list, "acme/valve")
	payload := []byte("whatever it is: signatures are over bytes")
	spoiled := seal(KindManifest, payload, 10, 11)
	spoiled[bytes.Index(spoiled, []byte("whatever"))] = 'W'
	shared := bytes.Clone(seal(KindManifest, payload, 10, 12)) // key 11's id on key 12's signature
	copy(shared[bytes.Index(shared, keyID(12)):], keyID(11))
	cases := []struct {
		name   string
		store  memory
		kind   Kind
		p      []byte
		want   Error
		checks int
	}{
		{"two release keys", pump, KindManifest, seal(KindManifest, payload, 10, 11), 0, 2},
		{"the other order", pump, KindManifest, seal(KindManifest, payload, 11, 10), 0, 2},
		{"a key with both roles", pump, KindManifest, seal(KindManifest, payload, 13, 10), 0, 2},
		{"strangers cost nothing", pump, KindManifest, seal(KindManifest, payload, 8, 9, 10, 13), 0, 2},
		{"no more checks than needed", pump, KindManifest, seal(KindManifest, payload, 10, 11, 13), 0, 2},
		{"one where two are needed", pump, KindManifest, seal(KindManifest, payload, 10), ErrThreshold, 1},
		{"one key twice", pump, KindManifest, seal(KindManifest, payload, 10, 10), ErrThreshold, 1},
		{"a key for another product", pump, KindManifest, seal(KindManifest, payload, 10, 12), ErrThreshold, 1},
		{"a stream key", pump, KindManifest, seal(KindManifest, payload, 10, 20), ErrThreshold, 1},
		{"a root", pump, KindManifest, seal(KindManifest, payload, 10, 1), ErrThreshold, 1},
		{"other bytes", pump, KindManifest, spoiled, ErrThreshold, 2},
		{"somebody else's id", pump, KindManifest, shared, ErrThreshold, 2},
		{"signed as a sheet", pump, KindManifest, seal(KindSheet, payload, 10, 11), ErrThreshold, 2},
		{"one is enough there", valve, KindManifest, seal(KindManifest, payload, 12), 0, 1},
		{"not for this product", valve, KindManifest, seal(KindManifest, payload, 11), ErrThreshold, 0},
		{"sheet by a stream key", pump, KindSheet, seal(KindSheet, payload, 20), 0, 1},
		{"sheet by a release key", pump, KindSheet, seal(KindSheet, payload, 11), 0, 1},
		{"sheet by another product's stream key", pump, KindSheet, seal(KindSheet, payload, 21), ErrThreshold, 0},
		{"sheet by a root", pump, KindSheet, seal(KindSheet, payload, 1), ErrThreshold, 0},
		{"sheet signed as a manifest", pump, KindSheet, seal(KindManifest, payload, 10), ErrThreshold, 1},
		{"a product that the list does not name", storeOf(t, list, "acme/lamp"), KindManifest, seal(KindManifest, payload, 10, 13), ErrNoProduct, 0},
		{"baked roots only", baked(1, 1, 1), KindManifest, seal(KindManifest, payload, 1), ErrNoProduct, 0},
		{"another algorithm, signed with the key", valve, KindManifest, sealAs(0x26, KindManifest, payload, 10), ErrThreshold, 0},
		{"no store", nil, KindManifest, seal(KindManifest, payload, 10, 11), ErrTrust, 0},
	}
	for _, c := range cases {
		var counts counter
		v, err, _ := verify(t, c.store, c.p, c.kind, &counts, &counts)
		n := counts.n
		if err != c.want || n != c.checks {
			t.Errorf("%s: %v after %d checks, want %v after %d", c.name, err, n, c.want, c.checks)
		}
		if err == 0 && count(v.Signers) == 0 {
			t.Errorf("%s: nobody signed", c.name)
		}
		// The same verdict, by the same signers and checks, where each takes many Steps.
		slow := &inSteps{}
		w, werr, steps := verify(t, c.store, c.p, c.kind, slow, &slow.counter)
		if werr != c.want || slow.n != c.checks || w.Signers != v.Signers {
			t.Errorf("%s, in steps: %v after %d checks by %b, want %v after %d by %b", c.name, werr, slow.n, w.Signers, c.want, c.checks, v.Signers)
		}
		if most := c.checks*(stepsOfOne+1) + 1; steps < c.checks*(stepsOfOne+1) || steps > most {
			t.Errorf("%s, in steps: %d Steps for %d checks", c.name, steps, c.checks)
		}
	}
	if done, err := new(Verification).Step(&counter{}); !done || err == 0 {
		t.Error("Step without Begin verifies")
	}
}

func TestTrustStore(t *testing.T) {
	list := enc(listOf(7, 2, 2, 1, 2, 3))
	p := storeOf(t, list, "acme/pump")
	var tr Trust
	if err := tr.Load(p, make([]byte, TrustHeaderSize)); err != 0 {
		t.Fatal(err)
	}
	if tr.Version != 7 || tr.Generation != 2 || tr.M != 2 || tr.Roots != 3 || tr.Keys != 2 || tr.Threshold != 1 || tr.Epoch != 3 || tr.Floor != 4 ||
		int(tr.Size()) != len(p) {
		t.Errorf("%+v, %d bytes", tr, len(p))
	}
	if p := storeOf(t, list, "acme/lamp"); p[11] != 0 || p[10] != 1 {
		t.Errorf("a product that is not named: threshold %d, %d keys", p[11], p[10])
	}
	if err := tr.Load(p, make([]byte, TrustHeaderSize-1)); err != ErrSpace {
		t.Error(err)
	}
	for name, c := range map[string]struct {
		at int
		v  byte
	}{"m 0": {8, 0}, "m 5": {8, 5}, "m above roots": {8, 4}, "nine roots": {9, 9}, "17 keys": {10, 17}, "threshold 5": {11, 5}} {
		q := memory(bytes.Clone(p))
		if q[c.at] = c.v; tr.Load(q, make([]byte, TrustHeaderSize)) != ErrTrust {
			t.Errorf("%s: taken", name)
		}
	}
	var l KeyList
	l.Parse(list)
	if _, err := Compact(make([]byte, len(p)-1), &l, []byte("acme/pump")); err != ErrSpace {
		t.Errorf("a store one byte too short: %v", err)
	}
}

// TestCompactInPlace compares it with Compact for every number of roots and
// keys: one byte written too early would change a later record.
func TestCompactInPlace(t *testing.T) {
	done := 0
	for roots := 1; roots <= MaxRoots; roots++ {
		for keys := 0; keys <= MaxKeys; keys++ {
			for _, named := range []bool{false, true} {
				r, ks := []int{}, arr{}
				for i := range roots {
					r = append(r, 100+i)
				}
				for i := range keys {
					k := mp{0, -8, 1, public(120 + i), 2, 1}
					if named && i%3 == 0 {
						k = append(k, 3, arr{"p", "q"})
					}
					ks = append(ks, k)
				}
				m := listOf(1, 1, 1, r...).set(4, ks).set(5, arr{mp{0, "p", 1, 1, 2, 1 << 30, 3, uint64(1 << 31)}})
				payload := enc(m)
				if len(payload) > MaxPayload {
					continue
				}
				done++
				p := seal(KindKeys, payload, 1)
				want := storeOf(t, payload, "p")
				var e Envelope
				var l KeyList
				if err := e.Parse(p); err != 0 {
					t.Fatal(err)
				}
				n, err := CompactInPlace(p, &e, &l, []byte("p"))
				if err != 0 || !bytes.Equal(p[:n], want) {
					t.Fatalf("%d roots, %d keys: %v, %d bytes, want %d", roots, keys, err, n, len(want))
				}
			}
		}
	}
	if done < 200 {
		t.Errorf("only %d lists were small enough", done)
	}
}

func TestNoAllocation(t *testing.T) {
	store := storeOf(t, enc(listOf(5, 2, 1, 1, 2)), "acme/pump")
	p, man := seal(KindKeys, enc(listOf(6, 2, 1, 1, 2)), 1), seal(KindManifest, enc(goodManifest()), 10)
	var e Envelope
	var l KeyList
	var a Acceptance
	var v Verification
	var m Manifest
	var r TrustReader = store
	var yes Verifier = liar{}
	n := chiptest.Allocs(10, func() {
		e.Parse(p)
		a.Begin(&e, &l, r)
		a.Step(yes)
		e.Parse(man)
		v.BeginManifest(&e, r)
		v.Step(yes)
		m.Parse(e.Payload)
	})
	if n != 0 || m.Sequence != 7 {
		t.Errorf("%v allocations; %+v", n, m)
	}
}
