package native

import (
	"bytes"
	"crypto/sha256"
	"strings"
	"testing"

	"github.com/runnel-fota/runnel/core/manifest"
	core "github.com/runnel-fota/runnel/core/wire/native"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/release"

	reasons "github.com/runnel-fota/runnel/core/device"
)

// derived adds a patch from base to a release: its sheet, and the file's digest.
func (w *rig) derived(r fleet.Release, base fleet.Digest) fleet.Stream {
	w.t.Helper()
	streams, err := w.store.Streams(w.t.Context(), r.ID)
	w.ok(nil, err)
	s := &release.Sheet{ImageRoot: release.Hash(streams[0].Root), Kind: manifest.StreamPatch, Profile: 1, RAM: 15000, BaseDigest: release.Hash(base), BaseSize: 5000, Length: 300, Chunk: 2048, Root: release.Hash{1}}
	m := fleet.Stream{Digest: sha256.Sum256([]byte(r.Version)), Kind: fleet.StreamPatch, Chunk: 2048, Length: 300, Root: fleet.Digest(s.Root), Sheet: w.sign(manifest.KindSheet, s, "release")}
	envelope, err := w.store.Manifest(w.t.Context(), r.ManifestDigest)
	w.ok(nil, err)
	w.ok(nil, func() error {
		_, _, err := w.store.PublishSigned(w.t.Context(), r, envelope.Envelope, append(streams, m), w.newestList(), w.now())
		return err
	}())
	return m
}

// A device that takes derived streams is offered one beside the raw one, until it says that
// one was of no use; its timeline says which it got.
func TestDerivedOffer(t *testing.T) {
	for _, c := range []struct {
		reason reasons.Reason
		state  core.State
		raw    bool // from then on
	}{
		{reasons.ReasonSheet, core.StateDownloading, true}, {reasons.ReasonPatchMemory, core.StateDownloading, true}, {reasons.ReasonBase, core.StateDownloading, true},
		{reasons.ReasonPatch, core.StateDownloading, true}, {reasons.ReasonPatch, core.StateFailed, true}, {reasons.ReasonRecord, core.StateDownloading, false},
	} {
		w := newRig(t, nil)
		w.keyList(1, 0)
		old := w.publish("1.0", 7, nil)
		r := w.publish("1.1", 8, nil)
		m := w.derived(r, old.Image.Digest)
		b := w.board("pump-1")
		b.poll.Digest = old.Image.Digest[:]
		if a := b.offered(r); a.Offer.Sheet != nil || a.Offer.Derived != nil {
			t.Fatalf("a device that takes none is offered one: %+v", a.Offer)
		}
		b.poll.Derived = core.Derived{Version: 1, Profiles: 1 << 1, RAM: 16384}
		want := sha256.Sum256(m.Sheet)
		for range 2 {
			a := b.offered(r)
			if !bytes.Equal(a.Offer.Sheet, want[:]) || int(a.Offer.SheetLength) != len(m.Sheet) || !bytes.Equal(a.Offer.Derived, m.Digest[:]) {
				t.Fatalf("%+v", a.Offer)
			}
			if got, err := w.store.Sheet(t.Context(), fleet.Digest(a.Offer.Sheet)); err != nil || !bytes.Equal(got.Sheet, m.Sheet) {
				t.Errorf("%+v %v", got, err)
			}
		}
		b.report(r, c.state, uint16(c.reason))
		if p := w.deployment("pump-1"); p.State != fleet.StateDownloading || p.RawOnly != c.raw || p.Reason != reasonText(uint16(c.reason)) {
			t.Errorf("reason %d: %+v", c.reason, p)
		}
		b.poll.InProgress, b.poll.Progress = r.Sequence, 1024
		if a := b.offered(r); (a.Offer.Sheet == nil) != c.raw {
			t.Errorf("reason %d: %+v", c.reason, a.Offer)
		}
		var told []string
		for _, line := range w.timeline("pump-1") {
			if strings.HasPrefix(line, "offer:") {
				told = append(told, line)
			}
		}
		n := 2
		if c.raw {
			n = 3
		}
		if len(told) != n || !strings.Contains(told[1], "as a patch from 1.0, ") || strings.Contains(told[0]+told[n-1], "as a patch") == c.raw {
			t.Errorf("reason %d: %q", c.reason, told)
		}
	}
}
