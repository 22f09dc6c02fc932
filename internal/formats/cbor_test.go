// Package formats holds core's formats against other people's implementations of
// the standards that they follow. It is tests only: nothing imports it.
package formats

import (
	"bytes"
	"encoding/hex"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	fx "github.com/fxamacker/cbor/v2"

	"github.com/runnel-fota/runnel/core/cbor"
	"github.com/runnel-fota/runnel/internal/testenv"
)

// strictest are the modes of fxamacker/cbor that come closest to our profile.
func strictest(t testing.TB) (fx.DecMode, fx.EncMode) {
	t.Helper()
	dec, err := fx.DecOptions{
		DupMapKey:       fx.DupMapKeyEnforcedAPF,
		MaxNestedLevels: 4,
		IndefLength:     fx.IndefLengthForbidden,
		IntDec:          fx.IntDecConvertNone,
		UTF8:            fx.UTF8RejectInvalid,
		BignumTag:       fx.BignumTagForbidden,
		NaN:             fx.NaNDecodeForbidden,
		Inf:             fx.InfDecodeForbidden,
	}.DecMode()
	if err != nil {
		t.Fatal(err)
	}
	enc, err := fx.CoreDetEncOptions().EncMode()
	if err != nil {
		t.Fatal(err)
	}
	return dec, enc
}

// accepted reports whether core takes p, tagged or not.
func accepted(p []byte) bool {
	var r cbor.Reader
	r.Begin(p)
	if len(p) > 1 && p[0] == 0xD8 && p[1] == 98 {
		r.Tag(98)
	}
	r.Skip()
	r.End()
	return r.Err() == 0
}

// agree wants of what core takes that fxamacker takes it too and writes the same
// bytes again.
func agree(t *testing.T, dec fx.DecMode, enc fx.EncMode, p []byte) bool {
	t.Helper()
	if !accepted(p) {
		return false
	}
	var v any
	if err := dec.Unmarshal(p, &v); err != nil {
		t.Fatalf("core takes % x, fxamacker/cbor says %v", p, err)
	}
	out, err := enc.Marshal(v)
	if err != nil || !bytes.Equal(out, p) {
		t.Fatalf("core takes % x, fxamacker/cbor writes it as % x, %v", p, out, err)
	}
	return true
}

// TestCBORByAnother makes objects in which half of the choices are bad ones.
func TestCBORByAnother(t *testing.T) {
	const seed = 20
	t.Logf("seed %d", seed)
	dec, enc := strictest(t)
	r := rand.New(rand.NewPCG(seed, 0))
	taken, refused := 0, 0
	for range 50_000 {
		if agree(t, dec, enc, object(r, nil, 0)) {
			taken++
		} else {
			refused++
		}
	}
	t.Logf("%d objects taken, %d refused", taken, refused)
	if taken < 5_000 || refused < 5_000 {
		t.Error("the objects are too good or too bad to show anything")
	}
}

func object(r *rand.Rand, p []byte, depth int) []byte {
	head := func(major byte, n uint64) {
		size := 0
		for size < 4 && n >= []uint64{24, 1 << 8, 1 << 16, 1 << 32, 0}[size] {
			size++
		}
		if size < 4 && r.IntN(60) == 0 {
			size++ // longer than it need be
		}
		if size == 0 {
			p = append(p, major<<5|byte(n))
			return
		}
		p = append(p, major<<5|byte(23+size))
		for i := 1<<(size-1) - 1; i >= 0; i-- {
			p = append(p, byte(n>>(8*i)))
		}
	}
	number := func() uint64 {
		return []uint64{0, 23, 24, 255, 256, 65535, 65536, 1<<32 - 1, 1 << 32, 1<<63 - 1}[r.IntN(10)]
	}
	kind := r.IntN(16)
	if depth == 0 {
		kind = 10 + r.IntN(6)
	}
	switch {
	case kind < 2:
		head(0, number())
	case kind < 3:
		head(1, number())
	case kind < 5:
		n := r.IntN(30)
		head(2, uint64(n))
		p = append(p, make([]byte, n)...)
	case kind < 7:
		text := []string{"", "runnel", "größe", "\U0001F4A1", "\xff", "\xed\xa0\x80"}[r.IntN(6-min(r.IntN(9), 2))]
		head(3, uint64(len(text)))
		p = append(p, text...)
	case kind < 9:
		p = append(p, []byte{0xF4, 0xF5}[r.IntN(2)])
	case kind < 10:
		p = append(p, []byte{0xF4, 0xF5, 0xF6, 0xF7, 0xE0, 0xC1}[r.IntN(6)])
	case kind < 12:
		n := r.IntN(4)
		head(4, uint64(n))
		for range n {
			p = object(r, p, depth+1)
		}
	default:
		n := r.IntN(4)
		head(5, uint64(n))
		k := r.IntN(20)
		for i := range n {
			if i == n-1 && r.IntN(3) == 0 {
				head(1, uint64(r.IntN(300)))
			} else {
				head(0, uint64(k))
			}
			k += r.IntN(12)
			p = object(r, p, depth+1)
		}
	}
	return p
}

// TestCBORShelf: core takes nothing of its malformed shelf, so that the test
// above does not rest on a reader that takes nothing or everything.
func TestCBORShelf(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(testenv.Root(), "core", "cbor", "testdata", "malformed", "*.txt"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		p, err := hex.DecodeString(strings.ReplaceAll(strings.Split(string(text), "\n")[2], " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		if accepted(p) {
			t.Errorf("%s is taken", filepath.Base(f))
		}
	}
}

func FuzzCBORByAnother(f *testing.F) {
	dec, enc := strictest(f)
	f.Add([]byte{0xA2, 0x00, 0x82, 0x01, 0x20, 0x20, 0xA1, 0x00, 0xF5})
	f.Add([]byte{0xD8, 0x62, 0x84, 0x40, 0xA0, 0x41, 0x00, 0x80})
	f.Fuzz(func(t *testing.T, p []byte) { agree(t, dec, enc, p) })
}
