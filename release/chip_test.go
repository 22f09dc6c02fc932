package release

import (
	"bytes"
	"testing"

	"github.com/runnel-fota/runnel/core/ed25519"
	"github.com/runnel-fota/runnel/core/manifest"
)

// TestChipVerifier judges a key list and a manifest as signed here with the chip's
// verifier, a Step at a time, and then with every byte of the manifest changed.
func TestChipVerifier(t *testing.T) {
	var chip ed25519.Verifier
	held, err := mustRoots(t, 2, "a", "b", "c").Store("")
	if err != nil {
		t.Fatal(err)
	}
	var e manifest.Envelope
	var l manifest.KeyList
	var a manifest.Acceptance
	envelope := sealed(t, manifest.KindKeys, list(1, 1, 2, "a", "b", "c"), "a", "c")
	if err := e.Parse(envelope); err != 0 {
		t.Fatal(err)
	}
	if err := a.Begin(&e, &l, memory(held)); err != 0 {
		t.Fatal(err)
	}
	steps := 0
	for done := false; !done; steps++ {
		if done, err = step(a.Step(&chip)); err != nil {
			t.Fatalf("key list: %v", err)
		}
	}
	if steps < 2*10 {
		t.Errorf("two signatures in %d Steps: not spread", steps)
	}

	trust, err := mustRoots(t, 2, "a", "b", "c").Accept(envelope)
	if err != nil {
		t.Fatal(err)
	}
	store, err := trust.Store("acme/pump")
	if err != nil {
		t.Fatal(err)
	}
	judge := func(p []byte) error {
		var e manifest.Envelope
		if err := e.Parse(p); err != 0 {
			return err
		}
		var v manifest.Verification
		if err := v.BeginManifest(&e, memory(store)); err != 0 {
			return err
		}
		for {
			if done, err := step(v.Step(&chip)); done || err != nil {
				return err
			}
		}
	}
	p := sealed(t, manifest.KindManifest, testManifest(t, make([]byte, 3000), 1024), "release")
	if err := judge(p); err != nil {
		t.Fatalf("manifest: %v", err)
	}
	for i := range p {
		q := bytes.Clone(p)
		q[i] ^= 1 << (i % 8)
		if judge(q) == nil {
			t.Errorf("byte %d of the envelope does not count", i)
		}
	}
}

func step(done bool, e manifest.Error) (bool, error) { return done, fault(e) }
