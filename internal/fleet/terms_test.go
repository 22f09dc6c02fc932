package fleet

import (
	"errors"
	"strings"
	"testing"

	"github.com/runnel-fota/runnel/release"
)

const signerA, signerB = "00000000000000aa", "00000000000000bb"

// checkedAs is release sequence, signed by those.
func checkedAs(t testing.TB, sequence uint32, signers string, threshold int, contact bool) SignedRelease {
	s := signedAs(t, 1, sequence, func(m *release.Manifest) { m.Confirm.Contact = contact })
	s.Checked = Checked{Signers: signers, Threshold: threshold, Contact: contact}
	return s
}

// A row a rule of Terms, by each way that decides: the push, a poll of a product without
// rollouts and one by a rollout. want is the rule; "": it is taken.
func TestTerms(t *testing.T) {
	both := signerA + " " + signerB
	for _, c := range []struct {
		name    string
		terms   Terms
		release SignedRelease
		ask     func(*NativeAsk)
		want    string
		push    bool // the push is refused too
		why     string
	}{
		{name: "none"},
		{name: "T2 signed", terms: Terms{Wire: WireSigned}},
		{name: "T2 mac-only is better than v1", terms: Terms{Wire: WireMACOnly}, ask: func(a *NativeAsk) { a.Wire = WireMACOnly }},
		{name: "T2 mac-only", terms: Terms{Wire: WireSigned}, ask: func(a *NativeAsk) { a.Wire = WireMACOnly }, want: "wire", why: "this one speaks mac-only"},
		{name: "T1 own", terms: Terms{Assurance: AssuranceOwn}},
		{name: "T3 goes back", terms: Terms{Confirm: ConfirmTrial}, ask: func(a *NativeAsk) { a.Rollback = true }},
		{name: "T3 does not", terms: Terms{Confirm: ConfirmTrial}, want: "trial", why: "does not say so"},
		{name: "T4 the right one", terms: Terms{Signers: []string{signerA}}, release: checkedAs(t, 9, signerA, 1, true)},
		{name: "T4 and another", terms: Terms{Signers: []string{signerB}}, release: checkedAs(t, 9, both, 1, true)},
		{name: "T4 another", terms: Terms{Signers: []string{signerB}}, release: checkedAs(t, 9, signerA, 1, true), want: "signer", push: true, why: signerA + " signed v1.9"},
		{name: "T4 not enough of them", terms: Terms{Signers: []string{signerB}}, release: checkedAs(t, 9, both, 2, true), want: "signer", push: true, why: "2 of them"},
		{name: "T4 enough", terms: Terms{Signers: []string{signerB, signerA}}, release: checkedAs(t, 9, both, 2, true)},
		{name: "T4 not noted", terms: Terms{Signers: []string{signerA}}, release: signedAs(t, 1, 9, nil), want: "signer", push: true, why: "push it again"},
		{name: "T5 contact", terms: Terms{Confirm: ConfirmContact}, release: checkedAs(t, 9, signerA, 1, true), ask: func(a *NativeAsk) { a.Rollback = true }},
		{name: "T5 by itself", terms: Terms{Confirm: ConfirmContact}, release: checkedAs(t, 9, signerA, 1, false), ask: func(a *NativeAsk) { a.Rollback = true }, want: "confirm", push: true, why: "does not"},
		{name: "T6 one of them", terms: Terms{Chunks: []int{1024, 4096}}},
		{name: "T6 the smaller alone", terms: Terms{Chunks: []int{1024, 512}}, push: true}, // 4,096 was published before the terms
		{name: "T6 none of them", terms: Terms{Chunks: []int{2048}}, want: "fit", push: true, why: "of those that p takes (2048)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.release.ID == 0 {
				c.release = checkedAs(t, 9, signerA, 1, true)
			}
			chunks := []int{1024, 4096}
			if err := c.terms.Refuse(c.release.Release, chunks...); (err != nil) != c.push || err != nil && (CodeOf(err) != CodeForbidden || hintOf(err) == "") {
				t.Errorf("push: %v", err)
			}
			a := ask()
			if c.ask != nil {
				c.ask(&a)
			}
			for _, rollouts := range [][]Rollout{nil, {rolloutOf(t, "100%", nil)}} {
				o := NewNativeOffers(NativeSnapshot{Generation: 1, Releases: []SignedRelease{c.release}, Products: []string{"p"}, List: listFor(t, 1, 0), Rollouts: rollouts, Terms: map[string]Terms{"p": c.terms}})
				d := &NativeDevice{Device: Device{ID: near, Heard: 1}}
				var trace Trace
				got := o.Decide(d, a, at(3), &trace)
				last := trace.Rules[len(trace.Rules)-1]
				if (got.Release == nil) != (c.want != "") || !strings.Contains(got.Why, c.why) {
					t.Errorf("%s: %+v", c.want, got)
				}
				if c.want != "" && c.want != "fit" && got.Verdict != VerdictTerms {
					t.Errorf("%s: %+v", c.want, got)
				}
				// What a rollout decides, its rule says; a release is left to the rollout before.
				if rollouts != nil && c.want != "" && last.Name != c.want {
					t.Errorf("%+v", trace.Rules)
				}
				if rollouts != nil && c.want != "fit" {
					if _, waits := o.Awaits(&rollouts[0], &d.Device, &a); waits != (c.want == "") {
						t.Errorf("a phase waits for it: %v", waits)
					}
				}
			}
		})
	}
}

func hintOf(err error) string {
	var e *Error
	errors.As(err, &e)
	return e.Hint
}

// Over v1 a device says neither what its bootloader does nor, mostly, who it is.
func TestTermsV1(t *testing.T) {
	for _, c := range []struct {
		name      string
		terms     Terms
		assurance Assurance
		chunk     int
		want      Verdict
	}{
		{"none", Terms{}, AssuranceNone, 1024, VerdictNewest},
		{"T1 own", Terms{Assurance: AssuranceOwn}, AssuranceOwn, 1024, VerdictNewest},
		{"T1 shared", Terms{Assurance: AssuranceOwn}, AssuranceShared, 1024, VerdictTerms},
		{"T1 shared is enough", Terms{Assurance: AssuranceShared}, AssuranceShared, 1024, VerdictNewest},
		{"T1 nobody", Terms{Assurance: AssuranceShared}, AssuranceNone, 1024, VerdictTerms},
		{"T2", Terms{Wire: WireMACOnly}, AssuranceOwn, 1024, VerdictTerms},
		{"T3", Terms{Confirm: ConfirmTrial}, AssuranceOwn, 1024, VerdictTerms},
		{"T4", Terms{Signers: []string{signerA}}, AssuranceOwn, 1024, VerdictTerms},
		{"T6", Terms{Chunks: []int{4096}}, AssuranceOwn, 1024, VerdictTerms},
		{"T6 one of them", Terms{Chunks: []int{4096, 1024}}, AssuranceOwn, 1024, VerdictNewest},
	} {
		t.Run(c.name, func(t *testing.T) {
			list := []Release{{ID: 9, Product: "p", Version: "9", State: ReleasePublished, ChunkSize: c.chunk, PublishedAt: at(1), Image: Image{Size: 5000}}}
			d := &NativeDevice{Device: Device{ID: near, Assurance: c.assurance}}
			var trace Trace
			got := NewV1Catalogue(list, RolloutSnapshot{Terms: map[string]Terms{"p": c.terms}}).Decide(d, at(3), &trace)
			if got.Verdict != c.want || (got.Release != nil) != (c.want == VerdictNewest) || got.Why == "" || len(trace.Rules) == 0 {
				t.Errorf("%+v %+v", got, trace.Rules)
			}
			// By a rollout the same devices get it.
			byRollout := NewV1Catalogue(list, RolloutSnapshot{Rollouts: []Rollout{rolloutOf(t, "100%", nil)}, Terms: map[string]Terms{"p": c.terms}}).Decide(d, at(3), nil)
			if (byRollout.Release != nil) != (c.want == VerdictNewest) {
				t.Errorf("%+v", byRollout)
			}
		})
	}
}

func TestTermsChange(t *testing.T) {
	own, weak, any, trial := AssuranceOwn, WireV1, ConfirmAny, ConfirmTrial
	was := Terms{Signers: []string{signerA}, Confirm: ConfirmContact, Wire: WireSigned, Chunks: []int{512}}
	got, err := TermsChange{Assurance: &own, Wire: &weak, Confirm: &any, Signers: &[]string{}}.Apply(was)
	if err != nil || len(got.Signers) != 0 || got.Assurance != AssuranceOwn || got.Wire != WireNone || got.Confirm != "" || got.DefaultChunk() != 512 {
		t.Errorf("%+v %v", got, err)
	}
	if got, err = (TermsChange{}).Apply(was); err != nil || got.Confirm != ConfirmContact {
		t.Errorf("%+v %v", got, err)
	}
	if (Terms{}).DefaultChunk() != DefaultChunkSize || !(TermsChange{}).Empty() || (TermsChange{Confirm: &trial}).Empty() {
		t.Error("defaults")
	}
	odd, wire, confirm := Assurance("odd"), Wire("odd"), Confirm("odd")
	for name, c := range map[string]TermsChange{
		"signer short": {Signers: &[]string{"aa"}}, "signer no hex": {Signers: &[]string{"00000000000000xx"}}, "signer upper": {Signers: &[]string{"00000000000000AA"}},
		"signer twice": {Signers: &[]string{signerA, signerA}}, "signers many": {Signers: ptrTo(make([]string, 17))},
		"chunk small": {Chunks: &[]int{64}}, "chunk twice": {Chunks: &[]int{512, 512}}, "assurance": {Assurance: &odd}, "wire": {Wire: &wire}, "confirm": {Confirm: &confirm},
	} {
		if _, err := c.Apply(Terms{}); CodeOf(err) != CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTermsHardware(t *testing.T) {
	terms := Terms{Hardware: []string{"r1", "r2", "00ff"}}
	for hardware, ok := range map[string]bool{"": true, "r1": true, "r2, 00ff": true, "r1, r3": false, "r": false} {
		err := terms.Refuse(Release{Product: "p", Version: "1", Sequence: 1, Hardware: hardware})
		if (err == nil) != ok || err != nil && (CodeOf(err) != CodeForbidden || hintOf(err) == "") {
			t.Errorf("%s: %v", hardware, err)
		}
	}
	for _, bad := range [][]string{{""}, {"a, b"}, {"r1", "r1"}, {"bell\a"}, make([]string, 65)} {
		if _, err := (TermsChange{Hardware: &bad}).Apply(Terms{}); CodeOf(err) != CodeInvalid {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func ptrTo[T any](v T) *T { return &v }

// A draft is for nobody, and what is in a channel for rollouts alone, on each wire.
func TestDraftsAndChannels(t *testing.T) {
	for _, c := range []struct {
		name    string
		change  func(*Release)
		newest  int64 // without rollouts
		rollout int64
	}{
		{"published", func(*Release) {}, 9, 9},
		{"draft", func(r *Release) { r.State = ReleaseDraft }, 8, 0},
		{"channel", func(r *Release) { r.Channel = "beta" }, 8, 9},
	} {
		s := signedAs(t, 1, 9, nil)
		c.change(&s.Release)
		old := signedAs(t, 1, 8, nil)
		s.PublishedAt, old.PublishedAt = at(9), at(8)
		for _, rollouts := range [][]Rollout{nil, {rolloutOf(t, "100%", nil)}} {
			want := c.newest
			if rollouts != nil {
				want = c.rollout
			}
			o := NewNativeOffers(NativeSnapshot{Releases: []SignedRelease{s, old}, Products: []string{"p"}, List: listFor(t, 1, 0), Rollouts: rollouts})
			var id int64
			if got := o.Decide(&NativeDevice{Device: Device{ID: near}}, ask(), at(20), nil); got.Release != nil {
				id = got.Release.ID
			}
			v1 := NewV1Catalogue([]Release{s.Release, old.Release}, RolloutSnapshot{Rollouts: rollouts})
			var v1ID int64
			if got := v1.Decide(&NativeDevice{Device: Device{ID: near, Assurance: AssuranceOwn}}, at(20), nil); got.Release != nil {
				v1ID = got.Release.ID
			}
			if id != want || v1ID != want {
				t.Errorf("%s, %d rollouts: native %d, v1 %d, not %d", c.name, len(rollouts), id, v1ID, want)
			}
		}
	}
	only := signedAs(t, 1, 9, nil)
	only.Channel = "beta"
	o := NewNativeOffers(NativeSnapshot{Releases: []SignedRelease{only}, Products: []string{"p"}, List: listFor(t, 1, 0)})
	if got := o.Decide(&NativeDevice{Device: Device{ID: near}}, ask(), at(20), nil); got.Verdict != VerdictNoRelease || !strings.Contains(got.Why, "channel") {
		t.Errorf("%+v", got)
	}
}

func TestWords(t *testing.T) {
	for _, c := range []struct {
		channel, notes string
		ok             bool
	}{{"", "", true}, {"stable", "fixes the valve\n- and  the pump\n", true}, {"a b", "", false}, {"", "bell\a", false}, {strings.Repeat("a", 65), "", false}, {"", strings.Repeat("a", MaxNotes+1), false}, {"", "tab\tseparated", true}, {"", "\xff", false}} {
		if err := ValidateWords(c.channel, c.notes); (err == nil) != c.ok {
			t.Errorf("%q %q: %v", c.channel, c.notes, err)
		}
	}
}

// Builds of a draft are drafts, and nothing that is published becomes one.
func TestBuildsOfDrafts(t *testing.T) {
	zero := Release{Product: "p", Version: "1", Epoch: 1, Sequence: 1, HasSlot: true, Slot: 0, State: ReleaseDraft, ManifestDigest: Digest{1}, Image: Image{Digest: Digest{1}}}
	one := zero
	one.Slot, one.ManifestDigest, one.Image.Digest, one.State = 1, Digest{2}, Digest{2}, ReleasePublished
	if old, err := FindBuild(one, []Release{zero}); old != nil || err != nil {
		t.Errorf("beside a draft: %v %v", old, err)
	}
	if old, err := FindBuild(zero, []Release{one}); old != nil || CodeOf(err) != CodeConflict {
		t.Errorf("a draft beside what is published: %v %v", old, err)
	}
	if old, err := FindBuild(zero, []Release{zero}); old == nil || err != nil {
		t.Errorf("again: %v %v", old, err)
	}
}
