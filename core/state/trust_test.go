package state

import (
	"bytes"
	"errors"
	"testing"

	"github.com/runnel-fota/runnel/core/flash"
)

// trustOf reads the whole trust store.
func trustOf(t testing.TB, s *Sectors) []byte {
	t.Helper()
	p := make([]byte, s.TrustLen())
	if err := s.ReadAt(p, 0); err != nil {
		t.Fatal(err)
	}
	return p
}

// storeTrust saves r and a new trust store, which lies in the buffer that the record
// is built in.
func storeTrust(s *Sectors, r *Record, trust []byte) error {
	buf := make([]byte, max(BufferSize, len(trust)))
	copy(buf, trust)
	if err := s.SetTrust(uint32(len(trust))); err != nil {
		return err
	}
	for {
		if done, err := s.Save(r, buf); done || err != nil {
			return err
		}
	}
}

func pattern(n int, seed byte) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = seed + byte(i*7)
	}
	return p
}

// The trust store moves along with every save, whatever its length.
func TestTrustMovesAlong(t *testing.T) {
	for _, n := range []int{1, 36, 511, 512, 513, 900, 1300} {
		m := &memory{left: -1}
		r := full()
		want := pattern(n, byte(n))
		if err := storeTrust(open2(t, m), &r, want); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			r.BootCount++
			if err := save(open2(t, m), &r); err != nil {
				t.Fatal(err)
			}
			if got := trustOf(t, open2(t, m)); !bytes.Equal(got, want) {
				t.Fatalf("%d bytes: the trust store changed", n)
			}
		}
	}
}

// A cut at any operation leaves the old trust store with the old record, or both new.
func TestCutSaveTrust(t *testing.T) {
	old, next := full(), full()
	next.BootCount = 100
	a, b := pattern(700, 1), pattern(900, 2)
	for k := 0; ; k++ {
		m := &memory{left: -1}
		if err := storeTrust(open2(t, m), &old, a); err != nil {
			t.Fatal(err)
		}
		m.left = k
		err := storeTrust(open2(t, m), &next, b)
		m.left = -1
		var got Record
		s := open(t, m)
		if lerr := s.Load(&got, make([]byte, BufferSize)); lerr != nil {
			t.Fatal(lerr)
		}
		if err == nil {
			if k < 4 || got != next || !bytes.Equal(trustOf(t, s), b) {
				t.Fatalf("after %d operations: not saved", k)
			}
			return
		}
		if !errors.Is(err, flash.ErrPower) || got != old || !bytes.Equal(trustOf(t, s), a) {
			t.Fatalf("cut at %d: %v, record %v", k, err, got == old)
		}
	}
}

// A trust store that flash lost is dropped, never given a new CRC; the record stays.
func TestTrustLost(t *testing.T) {
	m := &memory{left: -1}
	r := full()
	if err := storeTrust(open2(t, m), &r, pattern(600, 3)); err != nil {
		t.Fatal(err)
	}
	s := open2(t, m)
	at := uint32(s.at)*4096 + s.trustAt() + 550
	m.cells[at] ^= 0x10
	// Lost while it runs: the save in progress fails, the next one does without.
	if err := save(s, &r); !errors.Is(err, ErrVerify) {
		t.Fatalf("moved along damaged: %v", err)
	}
	// Lost while it was off.
	s = open(t, m)
	var got Record
	if err := s.Load(&got, make([]byte, BufferSize)); err != nil || got != r || s.TrustLen() != 0 {
		t.Fatalf("%v, trust store of %d bytes", err, s.TrustLen())
	}
	if err := save(s, &r); err != nil {
		t.Fatal(err)
	}
	if s = open2(t, m); s.TrustLen() != 0 {
		t.Error("a lost trust store came back")
	}
	if err := s.SetTrust(s.TrustRoom() + 1); !errors.Is(err, ErrBuffer) {
		t.Errorf("too long: %v", err)
	}
}

func TestFloorsOnlyRise(t *testing.T) {
	var f Floors
	for _, c := range []struct {
		im   Image
		want Floors
	}{
		{Image{Stamp: 5, Security: 2}, Floors{0, 5, 2}},
		{Image{Stamp: 3, Security: 1}, Floors{0, 5, 2}},
		{Image{Epoch: 1, Stamp: 2, Security: 1}, Floors{1, 2, 2}},
		{Image{Epoch: 0, Stamp: 9, Security: 3}, Floors{1, 2, 3}},
		{Image{Epoch: 1, Stamp: 4}, Floors{1, 4, 3}},
	} {
		if f.Raise(&c.im); f != c.want {
			t.Errorf("after %+v: %+v, want %+v", c.im, f, c.want)
		}
	}
	a, b := Image{Epoch: 1, Stamp: 1}, Image{Epoch: 0, Stamp: 9}
	if !a.Newer(&b) || b.Newer(&a) || a.Newer(&a) {
		t.Error("the epoch is compared first")
	}
}

func TestForgetBad(t *testing.T) {
	var r Record
	d := [32]byte{9}
	r.MarkBad(&d, 3)
	if !r.ForgetBad(&d) || r.IsBad(&d, 3) || r.ForgetBad(&d) {
		t.Error("an image is forgotten once")
	}
}

// One that was staged as often as allowed may be staged again at an operator's word.
func TestForgetGaveUp(t *testing.T) {
	var r Record
	r.Trial.Image.Digest, r.Trial.Stagings = [32]byte{9}, 4
	if r.ForgetBad(&[32]byte{8}) || r.Trial.Stagings != 4 {
		t.Error("another image's word counted")
	}
	r.Trial.Open = true
	if d := r.Trial.Image.Digest; r.ForgetBad(&d) {
		t.Error("an open trial was touched")
	}
	r.Trial.Open = false
	if d := r.Trial.Image.Digest; !r.ForgetBad(&d) || r.Trial.Stagings != 0 {
		t.Error("not forgotten")
	}
}

// Only a higher stamp begins the count anew, and it does not wrap.
func TestSpend(t *testing.T) {
	var r Record
	for range 3 {
		r.Spend(5)
		r.Spend(4)
	}
	if r.SpentStamp != 5 || r.Spent != 6 {
		t.Errorf("%d of stamp %d", r.Spent, r.SpentStamp)
	}
	if r.Spend(6); r.SpentStamp != 6 || r.Spent != 1 {
		t.Errorf("%d of stamp %d", r.Spent, r.SpentStamp)
	}
	for range 300 {
		r.Spend(1)
	}
	if r.Spent != 255 {
		t.Errorf("%d after 300", r.Spent)
	}
}
