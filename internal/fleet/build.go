package fleet

import "fmt"

// Builds. An image that can't be moved is linked for one slot, so a release of such
// images is published once a slot: the same product, version, epoch and sequence,
// another manifest each. Every build is a Release of its own, with an id, streams and
// deployments; what makes them one is that they share their numbers. Of one sequence,
// because a device that confirmed the lower of two would be offered the same version
// again, for its other slot.
//
// Rules, numbered for the tests:
//
//	B1 each build of a release has a slot, and no two have the same: an image that
//	   runs in any slot needs no other beside it
//	B2 they agree in version, hardware, security version, format and chip
//	B3 their images differ: a report names the build by its image
//	B4 they are published and withdrawn together: to one of a withdrawn release none
//	   is added, and a build of a draft is a draft

// SlotText is the slot that the image may go into, for people.
func (r Release) SlotText() string {
	if !r.HasSlot {
		return "any"
	}
	return fmt.Sprint(r.Slot)
}

// Name is the version, with the slot where there is one, for people.
func (r Release) Name() string {
	if !r.HasSlot {
		return r.Version
	}
	return fmt.Sprintf("%s for slot %d", r.Version, r.Slot)
}

// SameRelease says whether two releases are builds of one, or the same.
func (r Release) SameRelease(o Release) bool {
	return r.ID == o.ID || r.Signed() && o.Signed() && r.Product == o.Product && r.Epoch == o.Epoch && r.Sequence == o.Sequence
}

// FindBuild says whether a signed release may stand beside its builds, which are those
// that are stored under its product, epoch and sequence. It answers the one that it is
// itself, published again, or nil where it is new. Errors: CodeConflict.
func FindBuild(r Release, builds []Release) (*Release, error) {
	for i := range builds {
		b := &builds[i]
		if b.State == ReleaseWithdrawn { // B4
			return nil, conflict("issue it anew, with a higher sequence", "%s %s (sequence %d) was published and withdrawn", b.Product, b.Version, b.Sequence)
		}
		if b.ManifestDigest == r.ManifestDigest {
			return b, nil
		}
		if r.State == ReleaseDraft && b.State == ReleasePublished { // B4
			return nil, conflict("push it without --draft", "%s %s (sequence %d) is published, and a build beside it can't be a draft", b.Product, b.Version, b.Sequence)
		}
	}
	for _, b := range builds {
		if err := besides(r, b); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// besides is why r can't be a build beside b; nil: it can.
func besides(r, b Release) error {
	what := fmt.Sprintf("sequence %d of %s (epoch %d)", b.Sequence, b.Product, b.Epoch)
	differ := func(name string, is, was any) error {
		return conflict("builds of one release differ in slot and image only: sign it like the other, or with a higher sequence",
			"%s has %s %v for slot %d, and %v for slot %d would be another release", what, name, was, b.Slot, is, r.Slot)
	}
	switch {
	case !r.HasSlot && !b.HasSlot:
		return conflict("sign it with a higher sequence", "%s is published already, with another manifest", what)
	case r.HasSlot != b.HasSlot: // B1
		return conflict("each build of a release is for a slot of its own ('runnel sign --slot'); else sign it with a higher sequence",
			"%s is published already for slot %s, and this manifest is for slot %s", what, b.SlotText(), r.SlotText())
	case r.Slot == b.Slot: // B1
		return conflict("sign it with a higher sequence, or with the slot that its image is linked for", "%s is published already for slot %d, with another manifest", what, b.Slot)
	case r.Version != b.Version: // B2, as the next three
		return differ("version", r.Version, b.Version)
	case r.Hardware != b.Hardware:
		return differ("hardware", r.Hardware, b.Hardware)
	case r.SecurityVersion != b.SecurityVersion:
		return differ("security version", r.SecurityVersion, b.SecurityVersion)
	case r.Image.Chip != b.Image.Chip: // the chip says the format: a raw image has none
		return differ("format", formatOf(r), formatOf(b))
	case r.Image.Digest == b.Image.Digest: // B3
		return conflict("sign an image that runs in any slot once, without --slot", "%s is published already for slot %d, with the same image", what, b.Slot)
	}
	return nil
}

func formatOf(r Release) string {
	if r.Image.Chip == "" {
		return "raw"
	}
	return r.Image.Chip
}

func conflict(hint, format string, args ...any) error {
	return &Error{Code: CodeConflict, Message: fmt.Sprintf(format, args...), Hint: hint}
}
