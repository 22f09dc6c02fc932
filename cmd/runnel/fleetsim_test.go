package main

import (
	"math"
	"path/filepath"
	"testing"

	"github.com/spf13/cobra"

	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/sim/light"
)

// Fates are drawn by their shares, the same each time for the same seed, and a filter
// and a release keep them where they belong.
func TestFates(t *testing.T) {
	const n, seed = 20_000, 5
	f, err := fleet.ParseFilter(`hardware == "r2" and version == "2"`)
	if err != nil {
		t.Fatal(err)
	}
	r := &fleetRun{o: &fleetOptions{product: "acme/pump", seed: seed, failShare: 0.02, silentShare: 0.01, mutedShare: 0.05, how: "crash"}}
	count := func(version string) map[light.Fate]float64 {
		m := map[light.Fate]float64{}
		for i := range n {
			m[r.fate(simID("sim-", i), "r1", version)] += 1.0 / n
		}
		return m
	}
	got := count("1")
	for fate, want := range map[light.Fate]float64{light.FateCrash: 0.02, light.FateSilent: 0.01, light.FateMute: 0.05, light.FateRun: 0.92} {
		// Four standard deviations: one seed in some ten thousand would miss.
		if most := 4 * math.Sqrt(want*(1-want)/n); math.Abs(got[fate]-want) > most {
			t.Errorf("fate %d: %.4f of devices, want %.4f (seed %d)", fate, got[fate], want, seed)
		}
	}
	same, other := 0, 0
	for i := range n {
		id := simID("sim-", i)
		a := r.fate(id, "r1", "1")
		if a != r.fate(id, "r1", "1") {
			t.Fatal("drawn anew")
		}
		if a != light.FateRun {
			same++
			if r.fate(id, "r1", "2") != light.FateRun {
				other++
			}
		}
	}
	if other > same/2 {
		t.Errorf("of %d devices that fail with one release %d fail with the next: the same ones each time", same, other)
	}
	r.o.filter, r.o.failShare, r.o.silentShare, r.o.mutedShare, r.o.how = &f, 0, 0, 0, "self-test"
	for _, c := range []struct {
		hardware, version, only string
		want                    light.Fate
	}{{"r2", "2", "", light.FateSelfTest}, {"r1", "2", "", light.FateRun}, {"r2", "1", "", light.FateRun}, {"r2", "2", "3", light.FateRun}} {
		r.o.release = c.only
		if got := r.fate("x", c.hardware, c.version); got != c.want {
			t.Errorf("%+v: fate %d", c, got)
		}
	}
}

func TestHardwareShares(t *testing.T) {
	o := &fleetOptions{hardware: "r1:9, r2:1,0x0102:0"}
	if err := o.readHardware(); err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for i := range 1000 {
		got[o.hardwareOf(i)]++
	}
	if got["r1"] != 900 || got["r2"] != 100 || len(got) != 2 {
		t.Errorf("%v", got)
	}
	for _, bad := range []string{"r1:0", "r1:-1", ":3", "r1:70000"} {
		if err := (&fleetOptions{hardware: bad}).readHardware(); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

// Keys come again from their file, and differ from device to device; what is no such
// file is refused and left alone.
func TestSimKeys(t *testing.T) {
	cmd, path := &cobra.Command{}, filepath.Join(t.TempDir(), "fleet.keys")
	a, err := openSimKeys(cmd, path, "")
	if err != nil || a.again {
		t.Fatal(a, err)
	}
	b, err := openSimKeys(cmd, path, "")
	if err != nil || !b.again || b.Prefix != a.Prefix || a.key("x") != b.key("x") || a.key("x") == a.key("y") {
		t.Errorf("%v", err)
	}
	c, err := openSimKeys(cmd, "", "mine-")
	if err != nil || c.key("x") == a.key("x") || c.Prefix != "mine-" {
		t.Errorf("%v", err)
	}
	for _, text := range []string{"", "{}", `{"id_prefix":"a","secret":"00"}`, `{"id_prefix":"a b","secret":"` + serveKey + `"}`, serveKey} {
		bad := filepath.Join(t.TempDir(), "bad")
		if err := writeSecret(bad, text); err != nil {
			t.Fatal(err)
		}
		if _, err := openSimKeys(cmd, bad, ""); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}
