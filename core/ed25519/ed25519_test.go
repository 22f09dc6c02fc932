package ed25519

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha512"
	"encoding/hex"
	"math/big"
	"math/rand"
	"testing"
	"unsafe"

	"github.com/runnel-fota/runnel/core/internal/chiptest"
	"github.com/runnel-fota/runnel/core/manifest"
)

var (
	_ manifest.Verifier     = (*Verifier)(nil)
	_ manifest.StepVerifier = (*Verifier)(nil)
)

// verdict is this package's, after it was held against the standard library's.
// The message is written in two pieces, as a Sig_structure is.
func verdict(t *testing.T, key, sig, message []byte) bool {
	t.Helper()
	want := ed25519.Verify(key, message, sig)
	cut := len(message) / 3
	var v Verifier
	if got := v.Verify(AlgEdDSA, key, sig, message[:cut], message[cut:]); got != want {
		t.Fatalf("key %x\nsignature %x\nmessage %x\nverdict %v, the standard library's %v", key, sig, message, got, want)
	}
	return want
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	p, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestRFC8032: the vectors of section 7.1.
func TestRFC8032(t *testing.T) {
	for _, c := range []struct{ name, seed, key, message, sig string }{
		{"test 1", "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
			"d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "",
			"e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"},
		{"test 2", "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
			"3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", "72",
			"92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"},
		{"test 3", "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
			"fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025", "af82",
			"6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"},
		{"test SHA(abc)", "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
			"ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
			"ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
			"dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704"},
	} {
		key, sig, message := unhex(t, c.key), unhex(t, c.sig), unhex(t, c.message)
		secret := ed25519.NewKeyFromSeed(unhex(t, c.seed))
		if !bytes.Equal(secret[32:], key) || !bytes.Equal(ed25519.Sign(secret, message), sig) {
			t.Fatalf("%s: not as the standard library has it", c.name)
		}
		if !verdict(t, key, sig, message) {
			t.Errorf("%s does not hold", c.name)
		}
	}
}

// TestEveryBitCounts, of a signature and its key.
func TestEveryBitCounts(t *testing.T) {
	secret := ed25519.NewKeyFromSeed(make([]byte, 32))
	key, message := bytes.Clone(secret[32:]), []byte("message")
	sig := ed25519.Sign(secret, message)
	stride := 1
	if testing.Short() {
		stride = 5 // each bit of a byte, in other bytes
	}
	for _, p := range [][]byte{key, sig, message} {
		for bit := 0; bit < 8*len(p); bit += stride {
			p[bit/8] ^= 1 << (bit % 8)
			if verdict(t, key, sig, message) {
				t.Errorf("bit %d of %x does not count", bit, p)
			}
			p[bit/8] ^= 1 << (bit % 8)
		}
	}
	if !verdict(t, key, sig, message) {
		t.Error("the signature does not hold: the test is wrong")
	}
}

// TestAgainstStandardLibrary: random keys and messages of every length around the
// hash's blocks, and what is one change away from a signature.
func TestAgainstStandardLibrary(t *testing.T) {
	const seed = 7
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewSource(seed))
	random := func(n int) []byte {
		p := make([]byte, n)
		r.Read(p)
		return p
	}
	stride := 1
	if testing.Short() {
		stride = 4
	}
	for n := 0; n < 260; n += stride {
		secret := ed25519.NewKeyFromSeed(random(32))
		key, message := bytes.Clone(secret[32:]), random(n+n/200*bytesPerStep)
		sig := ed25519.Sign(secret, message)
		if !verdict(t, key, sig, message) {
			t.Fatalf("%d bytes: a signature does not hold", len(message))
		}
		if n%8 != 0 {
			continue
		}
		other := ed25519.NewKeyFromSeed(random(32))
		for _, m := range []struct {
			name              string
			key, sig, message []byte
		}{
			{"another key", other[32:], sig, message},
			{"another's signature", key, ed25519.Sign(other, message), message},
			{"one byte more", key, sig, append(bytes.Clone(message), 0)},
			{"a flipped bit of R", key, flip(sig[:32], r, sig[32:]), message},
			{"a flipped bit of S", key, append(bytes.Clone(sig[:32]), flip(sig[32:], r, nil)...), message},
			{"a flipped bit of the key", flip(key, r, nil), sig, message},
			{"random", random(32), random(64), message},
			{"a random R", key, append(random(32), sig[32:]...), message},
			{"S + L", key, append(bytes.Clone(sig[:32]), plusL(sig[32:])...), message},
		} {
			if verdict(t, m.key, m.sig, m.message) {
				t.Fatalf("%s: accepted", m.name)
			}
		}
	}
}

func flip(p []byte, r *rand.Rand, tail []byte) []byte {
	q := bytes.Clone(p)
	q[r.Intn(len(q))] ^= 1 << r.Intn(8)
	return append(q, tail...)
}

func fromLittle(p []byte) *big.Int {
	var a element
	load(&a, p)
	return bigOf(&a)
}

func plusL(s []byte) []byte { return little(new(big.Int).Add(fromLittle(s), bigL)) }

// scalarOf is k of a signature.
func scalarOf(r, key, message []byte) *big.Int {
	h := sha512.New()
	h.Write(r)
	h.Write(key)
	h.Write(message)
	sum := h.Sum(nil)
	n := fromLittle(sum[32:])
	n.Lsh(n, 256).Add(n, fromLittle(sum[:32]))
	return n.Mod(n, bigL)
}

// TestEdgeCases holds the verdict against the standard library's where verifiers
// are known to differ: keys and R of small order and of mixed order, encodings
// that are not reduced, S at and beyond L. Every class is made so that it would
// pass in a verifier which takes that class, and where the standard library takes
// it, it has to be taken.
func TestEdgeCases(t *testing.T) {
	const seed = 8
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewSource(seed))
	small := torsion(r)
	smallKeys := encodings(small)
	if len(smallKeys) != 14 {
		t.Fatalf("%d encodings of points of small order", len(smallKeys))
	}
	scalars := []*big.Int{big.NewInt(0), big.NewInt(1), new(big.Int).Sub(bigL, big.NewInt(1)), bigL,
		new(big.Int).Add(bigL, big.NewInt(1)), new(big.Int).Lsh(big.NewInt(1), 252), new(big.Int).Lsh(big.NewInt(1), 253),
		new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 256), big.NewInt(1))}
	secret := new(big.Int).Rand(r, bigL)
	nonce := new(big.Int).Rand(r, bigL)
	public, commit := bigBase.times(secret), bigBase.times(nonce)

	taken := map[string]int{}
	try := func(class string, key, rr []byte, s *big.Int, message []byte) {
		sig := append(bytes.Clone(rr), little(s)...)
		if verdict(t, key, sig, message) {
			taken[class]++
		} else {
			taken[class] += 0
		}
	}
	rounds := 3
	if testing.Short() {
		rounds = 1
	}
	for round := range rounds {
		message := []byte{byte(round), 1, 2, 3}
		for _, key := range smallKeys {
			// S = 0 and R = -kA, which only some R, or only some message, gives.
			for _, rr := range smallKeys {
				try("small key, small R, S = 0", key, rr, big.NewInt(0), message)
				try("small key, small R, S = L", key, rr, bigL, message)
			}
			// Any S, R = SB: holds where kA is neutral.
			try("small key, any R", key, commit.encode(), nonce, message)
			for _, tt := range small {
				try("small key, mixed R", key, commit.add(tt).encode(), nonce, message)
			}
		}
		for _, tk := range small {
			key := public.add(tk).encode()
			for _, tr := range small {
				rr := commit.add(tr).encode()
				k := scalarOf(rr, key, message)
				s := new(big.Int).Mul(k, secret)
				s.Add(s, nonce).Mod(s, bigL)
				class := "mixed key or R"
				if tk.equal(bigNeutral) && tr.equal(bigNeutral) {
					class = "a signature"
				}
				try(class, key, rr, s, message)
				try("S + L", key, rr, new(big.Int).Add(s, bigL), message)
			}
		}
		// R of small order: S = ka, R neutral, in every encoding.
		for _, rr := range smallKeys {
			k := scalarOf(rr, public.encode(), message)
			s := k.Mul(k, secret).Mod(k, bigL)
			class := "R of small order, not neutral"
			if bytes.Equal(rr, bigNeutral.encode()) {
				class = "R neutral"
			} else if p := lift(new(big.Int).SetBit(fromLittle(rr), 255, 0), 0); p.equal(bigNeutral) {
				class = "R neutral, in another encoding"
			}
			try(class, public.encode(), rr, s, message)
		}
	}
	message := []byte("edges")
	for _, s := range scalars {
		try("S at its bounds", public.encode(), commit.encode(), s, message)
		try("S at its bounds, neutral key", bigNeutral.encode(), bigBase.times(s).encode(), s, message)
	}
	// Every y that is not reduced, as key and as R, with every sign.
	for i := range int64(19) {
		for sign := range uint(2) {
			p := encode(new(big.Int).Add(bigP, big.NewInt(i)), sign)
			a := lift(big.NewInt(i), sign)
			class := "key not reduced, not on the curve"
			if a.x != nil {
				class = "key not reduced"
			}
			for round := range 4 {
				// The secret of such a key is not known but for those of small order.
				try(class, p, bigNeutral.encode(), big.NewInt(0), []byte{byte(round)})
				try("R not reduced", public.encode(), p, nonce, []byte{byte(round)})
			}
		}
	}
	off := 0
	for range 200 {
		y := new(big.Int).Rand(r, bigP)
		if p := lift(y, 0); p.x == nil {
			off++
			try("key not on the curve", encode(y, uint(off&1)), commit.encode(), nonce, message)
		}
	}
	// What the standard library takes must occur, or the class was not tested.
	for class, must := range map[string]bool{
		"small key, small R, S = 0":         true,
		"small key, small R, S = L":         false,
		"small key, any R":                  true,
		"small key, mixed R":                true,
		"mixed key or R":                    true,
		"a signature":                       true,
		"S + L":                             false,
		"R neutral":                         true,
		"R neutral, in another encoding":    false,
		"R of small order, not neutral":     false,
		"S at its bounds":                   false,
		"S at its bounds, neutral key":      true,
		"key not reduced, not on the curve": false,
		"key not reduced":                   true,
		"R not reduced":                     false,
		"key not on the curve":              false,
	} {
		n, ok := taken[class]
		if !ok || must != (n > 0) {
			t.Errorf("%s: taken %d times (tried: %v)", class, n, ok)
		}
		delete(taken, class)
	}
	if len(taken) > 0 {
		t.Errorf("classes without a verdict: %v", taken)
	}
}

// TestWeakEncodings: manifest.CheckKey, which stands at the door of every key
// list, refuses each encoding of a point of small order, and each y that is not
// reduced.
func TestWeakEncodings(t *testing.T) {
	const seed = 9
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewSource(seed))
	points := torsion(r)
	for i, p := range points {
		for j := range i {
			if p.equal(points[j]) {
				t.Fatal("the points are not eight: the test is wrong")
			}
		}
	}
	for _, p := range encodings(points) {
		if manifest.CheckKey(p) == 0 {
			t.Errorf("small order, not refused: %x", p)
		}
	}
	for i := range int64(19) {
		for sign := range uint(2) {
			if p := encode(new(big.Int).Add(bigP, big.NewInt(i)), sign); manifest.CheckKey(p) != manifest.ErrKeyForm {
				t.Errorf("not reduced, not refused: %x", p)
			}
		}
	}
	// Keys that a secret belongs to are taken, next to the edge too.
	for i := range int64(40) {
		if p := bigBase.times(new(big.Int).Sub(bigL, big.NewInt(i+1))).encode(); manifest.CheckKey(p) != 0 {
			t.Errorf("refused: %x", p)
		}
	}
}

// TestKey: a key is taken just where it is on the curve, and is the point that
// plain arithmetic finds. The verdict alone would not show it: nobody can make a
// signature that a verifier without this check would take.
func TestKey(t *testing.T) {
	on, off := 0, 0
	for _, n := range numbers(t, 10, 200) {
		key := little(n)
		p := lift(new(big.Int).SetBit(n, 255, 0), n.Bit(255))
		var v Verification
		v.Begin(key, make([]byte, SignatureSize), nil, nil)
		v.Step() // the message
		done, ok := v.Step()
		if ok || done != (p.x == nil) {
			t.Fatalf("key %x: %v, %v", key, done, ok)
		}
		if p.x == nil {
			off++
			continue
		}
		on++
		p = p.negative()
		twice := p.add(p)
		for i := range v.table {
			q := &v.table[i]
			z := bigOf(&q.z2)
			for _, c := range []struct {
				got  *element
				want *big.Int // with z2 = 2
			}{
				{&q.sum, plusBig(p.y, p.x)},
				{&q.difference, minusBig(p.y, p.x)},
				{&q.product, times(bigD, times(big.NewInt(2), times(p.x, p.y)))},
			} {
				if times(bigOf(c.got), big.NewInt(2)).Cmp(times(c.want, z)) != 0 {
					t.Fatalf("key %x, times %d: not the point", key, 2*i+1)
				}
			}
			p = p.add(twice)
		}
	}
	if on < 50 || off < 50 {
		t.Errorf("%d on the curve, %d off it: one side is hardly tested", on, off)
	}
}

// TestBegin: what is no signature at all.
func TestBegin(t *testing.T) {
	secret := ed25519.NewKeyFromSeed(make([]byte, 32))
	key, message := []byte(secret[32:]), []byte("message")
	sig := ed25519.Sign(secret, message)
	for _, c := range []struct {
		name     string
		alg      int8
		key, sig []byte
		want     bool
	}{
		{"a signature", AlgEdDSA, key, sig, true},
		{"another algorithm", -7, key, sig, false},
		{"a short key", AlgEdDSA, key[:31], sig, false},
		{"a long key", AlgEdDSA, append(bytes.Clone(key), 0), sig, false},
		{"no key", AlgEdDSA, nil, sig, false},
		{"a short signature", AlgEdDSA, key, sig[:63], false},
		{"a long signature", AlgEdDSA, key, append(bytes.Clone(sig), 0), false},
		{"no signature", AlgEdDSA, key, nil, false},
	} {
		var v Verifier
		for range 2 { // a Verifier may be used again
			if v.Verify(c.alg, c.key, c.sig, message[:2], message[2:]) != c.want {
				t.Errorf("%s: not %v", c.name, c.want)
			}
		}
		// After one that held, and without another Begin, it stays what it was.
		if done, ok := v.Step(); !done || ok != c.want {
			t.Errorf("%s: a Step after the last: %v, %v", c.name, done, ok)
		}
	}
	if done, ok := new(Verification).Step(); !done || ok {
		t.Error("Step without Begin accepts")
	}
	if AlgEdDSA != manifest.AlgEdDSA {
		t.Error("AlgEdDSA is not manifest's")
	}
}

// TestSteps: a Step is bounded, whatever the message; key and signature may be
// overwritten after Begin, as a device's buffer is.
func TestSteps(t *testing.T) {
	secret := ed25519.NewKeyFromSeed(make([]byte, 32))
	message := make([]byte, 10*bytesPerStep)
	for _, n := range []int{0, 1, bytesPerStep - 1, bytesPerStep, bytesPerStep + 1, len(message)} {
		key, sig := bytes.Clone(secret[32:]), ed25519.Sign(secret, message[:n])
		var v Verification
		v.Begin(key, sig, nil, message[:n])
		clear(key)
		clear(sig)
		steps := 0
		for {
			left, bit := len(v.payload), v.bit
			done, ok := v.Step()
			steps++
			if left-len(v.payload) > bytesPerStep || bit-v.bit > bitsPerStep {
				t.Fatalf("one Step took %d bytes, %d bits", left-len(v.payload), bit-v.bit)
			}
			if done {
				if !ok {
					t.Errorf("%d bytes: does not hold", n)
				}
				break
			}
		}
		// The message, the key, the bits 253 to 0, the comparison.
		want := max(1, (n+bytesPerStep-1)/bytesPerStep) + 1 + (topBit+bitsPerStep)/bitsPerStep + 1
		if steps != want {
			t.Errorf("%d bytes: %d Steps, want %d", n, steps, want)
		}
	}
}

func TestState(t *testing.T) {
	if n := unsafe.Sizeof(Verification{}); n > 1312 {
		t.Errorf("Verification takes %d bytes, at most 1312 are allowed (docs/design/ed25519.md)", n)
	}
	secret := ed25519.NewKeyFromSeed(make([]byte, 32))
	key, message := []byte(secret[32:]), make([]byte, 100)
	sig := ed25519.Sign(secret, message)
	var v Verifier
	if n := chiptest.Allocs(10, func() { v.Verify(AlgEdDSA, key, sig, message[:7], message[7:]) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzVerify(f *testing.F) {
	secret := ed25519.NewKeyFromSeed(make([]byte, 32))
	f.Add([]byte(secret[32:]), ed25519.Sign(secret, nil), []byte{})
	f.Add([]byte(secret[32:]), ed25519.Sign(secret, []byte("message")), []byte("message"))
	for _, key := range encodings([]bigPoint{bigNeutral, {big.NewInt(0), mod(big.NewInt(-1))}}) {
		f.Add(key, append(bigNeutral.encode(), make([]byte, 32)...), []byte("small order"))
	}
	f.Fuzz(func(t *testing.T, key, sig, message []byte) {
		if len(key) != KeySize {
			return // the standard library panics
		}
		verdict(t, key, sig, message)
		// A true signature by a key that the input chooses, and the input's change of it.
		secret := ed25519.NewKeyFromSeed(key)
		true1 := ed25519.Sign(secret, message)
		if !verdict(t, secret[32:], true1, message) {
			t.Fatal("a signature does not hold")
		}
		for i := range min(len(sig), len(true1)) {
			true1[i] ^= sig[i]
		}
		verdict(t, secret[32:], true1, message)
	})
}

func BenchmarkVerify(b *testing.B) {
	secret := ed25519.NewKeyFromSeed(make([]byte, 32))
	message := make([]byte, 1200)
	sig := ed25519.Sign(secret, message)
	var v Verifier
	for range b.N {
		if !v.Verify(AlgEdDSA, secret[32:], sig, nil, message) {
			b.Fatal("does not hold")
		}
	}
}
