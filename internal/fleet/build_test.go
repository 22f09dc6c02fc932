package fleet

import (
	"errors"
	"strings"
	"testing"
)

func TestFindBuild(t *testing.T) {
	build := func(slot int, change func(*Release)) Release {
		r := Release{ID: int64(10 + slot), Product: "p", Version: "1.0", State: ReleasePublished, Epoch: 1, Sequence: 9, SecurityVersion: 2, Hardware: "r2",
			HasSlot: slot >= 0, Image: Image{Digest: Digest{byte(slot + 1)}, Size: 5000}, ManifestDigest: Digest{byte(slot + 1), 1}}
		if r.HasSlot {
			r.Slot = uint8(slot)
		}
		if change != nil {
			change(&r)
		}
		return r
	}
	for _, c := range []struct {
		name   string
		r      Release
		stored []Release
		is     int64  // the stored one that it is; 0: it is new
		why    string // "": it is taken
	}{
		{name: "the first", r: build(0, nil)},
		{name: "the same again", r: build(0, nil), stored: []Release{build(0, nil)}, is: 10},
		{name: "the same again beside another", r: build(1, nil), stored: []Release{build(0, nil), build(1, nil)}, is: 11},
		{name: "for the other slot", r: build(1, nil), stored: []Release{build(0, nil)}},
		{name: "for a third slot", r: build(2, nil), stored: []Release{build(0, nil), build(1, nil)}},
		{name: "B1 no slots", r: build(-1, func(r *Release) { r.ManifestDigest = Digest{9} }), stored: []Release{build(-1, nil)}, why: "is published already, with another manifest"},
		{name: "B1 a slot beside any", r: build(1, nil), stored: []Release{build(-1, nil)}, why: "for slot any, and this manifest is for slot 1"},
		{name: "B1 any beside a slot", r: build(-1, nil), stored: []Release{build(1, nil)}, why: "for slot 1, and this manifest is for slot any"},
		{name: "B1 the same slot", r: build(1, func(r *Release) { r.ManifestDigest = Digest{9} }), stored: []Release{build(0, nil), build(1, nil)}, why: "already for slot 1, with another manifest"},
		{name: "B2 version", r: build(1, func(r *Release) { r.Version = "1.1" }), stored: []Release{build(0, nil)}, why: "has version 1.0 for slot 0, and 1.1 for slot 1"},
		{name: "B2 hardware", r: build(1, func(r *Release) { r.Hardware = "r3" }), stored: []Release{build(0, nil)}, why: "hardware r2"},
		{name: "B2 security version", r: build(1, func(r *Release) { r.SecurityVersion = 1 }), stored: []Release{build(0, nil)}, why: "security version 2"},
		{name: "B2 format", r: build(1, func(r *Release) { r.Image.Chip = "ESP32" }), stored: []Release{build(0, nil)}, why: "format raw for slot 0, and ESP32 for slot 1"},
		{name: "B2 holds against each", r: build(2, func(r *Release) { r.Hardware = "r3" }), stored: []Release{build(0, func(r *Release) { r.Hardware = "r3" }), build(1, nil)}, why: "for slot 1"},
		{name: "B3 the same image", r: build(1, func(r *Release) { r.Image.Digest = Digest{1} }), stored: []Release{build(0, nil)}, why: "with the same image"},
		{name: "B4 withdrawn", r: build(0, nil), stored: []Release{build(0, func(r *Release) { r.State = ReleaseWithdrawn })}, why: "was published and withdrawn"},
		{name: "B4 beside a withdrawn one", r: build(1, nil), stored: []Release{build(0, func(r *Release) { r.State = ReleaseWithdrawn })}, why: "was published and withdrawn"},
	} {
		got, err := FindBuild(c.r, c.stored)
		if c.why == "" {
			if err != nil || (got == nil) != (c.is == 0) || got != nil && got.ID != c.is {
				t.Errorf("%s: %+v %v", c.name, got, err)
			}
			continue
		}
		var e *Error
		if got != nil || !errors.As(err, &e) || e.Code != CodeConflict || e.Hint == "" || !strings.Contains(e.Message, c.why) {
			t.Errorf("%s: %+v %v", c.name, got, err)
		}
	}
}

func TestSameRelease(t *testing.T) {
	a := Release{ID: 1, Product: "p", Epoch: 1, Sequence: 9, HasSlot: true}
	for name, c := range map[string]struct {
		b    Release
		same bool
	}{
		"itself":           {a, true},
		"a build":          {Release{ID: 2, Product: "p", Epoch: 1, Sequence: 9, HasSlot: true, Slot: 1}, true},
		"the next":         {Release{ID: 2, Product: "p", Epoch: 1, Sequence: 10}, false},
		"another epoch":    {Release{ID: 2, Product: "p", Epoch: 2, Sequence: 9}, false},
		"another product":  {Release{ID: 2, Product: "q", Epoch: 1, Sequence: 9}, false},
		"without a number": {Release{ID: 2, Product: "p"}, false},
	} {
		if a.SameRelease(c.b) != c.same || c.b.SameRelease(a) != c.same {
			t.Error(name)
		}
	}
	unsigned := Release{ID: 1, Product: "p"}
	if unsigned.SameRelease(Release{ID: 2, Product: "p"}) {
		t.Error("two unsigned ones are one")
	}
}
