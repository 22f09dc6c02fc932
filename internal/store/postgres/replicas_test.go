package postgres

import (
	"sync"
	"testing"
	"time"

	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/internal/store/postgres/pgtest"
)

// Of polls with one nonce, at whichever server, one takes it; what it reads is as it was before.
func TestPollTaking(t *testing.T) {
	ctx, now := t.Context(), time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	url := pgtest.Start(t, false).URL("postgres")
	stores := []*Store{openAt(t, url), openAt(t, url)}
	for _, s := range stores {
		defer s.Close()
	}
	s := stores[0]
	if err := s.AddNativeDevice(ctx, fleet.Device{ID: "a", Product: "p"}, fleet.Key{1}, nil, now); err != nil {
		t.Fatal(err)
	}
	for nonce := uint64(1); nonce <= 20; nonce++ {
		var wg sync.WaitGroup
		var mu sync.Mutex
		takes := 0
		for i := range 8 {
			wg.Go(func() {
				n, taken, err := stores[i%2].PollTaking(ctx, fleet.NativeSeen{Device: "a", Nonce: nonce, Boot: uint32(nonce), At: now}, 0, fleet.Wanted{})
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				if taken {
					takes++
					if n.NativeNonce != nonce-1 || n.Boot != uint32(nonce-1) {
						t.Errorf("nonce %d: read %d and boot %d", nonce, n.NativeNonce, n.Boot)
					}
				}
			})
		}
		wg.Wait()
		if takes != 1 {
			t.Errorf("nonce %d was taken %d times", nonce, takes)
		}
	}
	before := s.Statements()
	if _, taken, err := s.PollTaking(ctx, fleet.NativeSeen{Device: "a", Nonce: 30, At: now}, 1, fleet.Wanted{}); taken || err != nil {
		t.Errorf("with keys of another version: %v %v", taken, err)
	}
	if n := s.Statements() - before; n != 1 {
		t.Errorf("%d statements", n)
	}
	if _, _, err := s.PollTaking(ctx, fleet.NativeSeen{Device: "nobody", Nonce: 1, At: now}, 0, fleet.Wanted{}); fleet.CodeOf(err) != fleet.CodeNotFound {
		t.Error(err)
	}
	if d, err := s.Device(ctx, "a"); err != nil || d.NativeNonce != 20 || !d.LastSeen.Equal(now) || d.Heard == 0 {
		t.Errorf("%+v %v", d, err)
	}
	// A change by a poll that took its nonce is made while no later one took one.
	for _, c := range []struct {
		nonce uint64
		taken bool
		fresh bool
	}{{20, false, false}, {19, true, false}, {20, true, true}} {
		got, err := s.TakePoll(ctx, fleet.NativeChange{Device: "a", Nonce: c.nonce, Taken: c.taken, Now: now, Wire: fleet.WireSigned})
		if err != nil || got.Fresh != c.fresh {
			t.Errorf("%+v: %+v %v", c, got, err)
		}
	}
}

// A v1 nonce is taken where the device is still as it was judged.
func TestTakeV1(t *testing.T) {
	ctx, now := t.Context(), time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	url := pgtest.Start(t, false).URL("postgres")
	stores := []*Store{openAt(t, url), openAt(t, url)}
	for _, s := range stores {
		defer s.Close()
	}
	s := stores[0]
	if err := s.AddDevice(ctx, fleet.Device{ID: "a"}, &fleet.Key{1}, now); err != nil {
		t.Fatal(err)
	}
	take := func(by, next fleet.V1Known) fleet.V1State {
		t.Helper()
		st, err := s.TakeV1(ctx, fleet.V1Take{Device: "a", By: by, New: next, At: now})
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	if st := take(fleet.V1Known{}, fleet.V1Known{Nonce: 5, Clocked: true}); !st.Taken || st.Offer.Known || st.Generation == 0 || st.Wire != fleet.WireNone {
		t.Errorf("%+v", st)
	}
	for name, by := range map[string]fleet.V1Known{"an older nonce": {Nonce: 4, Clocked: true}, "no clock": {Nonce: 5}} {
		if st := take(by, fleet.V1Known{Nonce: 9, Clocked: true}); st.Taken || st.Known != (fleet.V1Known{Nonce: 5, Clocked: true}) || st.Wire != fleet.WireV1 {
			t.Errorf("judged by %s: %+v", name, st)
		}
	}
	if st := take(fleet.V1Known{Nonce: 5, Clocked: true}, fleet.V1Known{Nonce: 3, Clocked: true}); st.Taken {
		t.Errorf("it went back: %+v", st)
	}
	offer := fleet.V1Offer{Known: true, Release: 7, Generation: 3}
	if err := s.OfferV1(ctx, "a", offer); err != nil {
		t.Fatal(err)
	}
	if st := take(fleet.V1Known{Nonce: 5, Clocked: true}, fleet.V1Known{Nonce: 6, Clocked: true}); !st.Taken || st.Offer != offer {
		t.Errorf("%+v", st)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	takes := 0
	for i := range 16 {
		wg.Go(func() {
			st, err := stores[i%2].TakeV1(ctx, fleet.V1Take{Device: "a", By: fleet.V1Known{Nonce: 6, Clocked: true}, New: fleet.V1Known{Nonce: 7, Clocked: true}, At: now})
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			if st.Taken {
				takes++
			}
		})
	}
	wg.Wait()
	if takes != 1 {
		t.Errorf("taken %d times", takes)
	}
	if _, err := s.TakeV1(ctx, fleet.V1Take{Device: "nobody", New: fleet.V1Known{Nonce: 1}}); fleet.CodeOf(err) != fleet.CodeNotFound {
		t.Error(err)
	}
	// Who has spoken a stronger wire is not heard.
	if err := s.AddNativeDevice(ctx, fleet.Device{ID: "n"}, fleet.Key{1}, &fleet.Key{2}, now); err != nil {
		t.Fatal(err)
	}
	if _, err := s.TakePoll(ctx, fleet.NativeChange{Device: "n", Nonce: 1, Now: now, Wire: fleet.WireSigned}); err != nil {
		t.Fatal(err)
	}
	if st, err := s.TakeV1(ctx, fleet.V1Take{Device: "n", New: fleet.V1Known{Nonce: 1}}); err != nil || st.Taken || st.Wire != fleet.WireSigned {
		t.Errorf("%+v %v", st, err)
	}
}
