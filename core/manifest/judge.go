package manifest

// DeviceFacts is what a manifest must fit: the device as it was built, and the
// slot that would be written.
type DeviceFacts struct {
	Product     []byte
	Hardware    []byte
	Format      uint8  // the one that its bootloader starts
	Chip        uint16 // with FormatESP
	Slot        uint8  // the target
	SlotAddress uint32
	SlotSize    uint32 // bytes
	Chunk       uint32 // largest chunk that its buffer takes, bytes
}

// Floors are the numbers that a release must not fall below.
type Floors struct {
	// Listed: there is a key list, and these are its numbers for the product.
	// Without one (profile mac-only) the device's own are all there is.
	Listed     bool
	ListEpoch  uint32
	ListFloor  uint32 // security version
	Epoch      uint32 // of what was confirmed last, with the sequence
	Sequence   uint32 // highest confirmed one in Epoch; 0: none
	Security   uint32 // highest confirmed security version
	InProgress uint32 // sequence of the release in progress; 0: none
	// InProgressEpoch belongs to InProgress.
	InProgressEpoch uint32
}

// Check judges a manifest whose signatures were checked, in the order of
// docs/format/manifest.md: what is wrong first is the answer.
func Check(m *Manifest, d *DeviceFacts, f *Floors) Error {
	im := &m.Image
	switch {
	case !equal(m.Product, d.Product):
		return ErrProduct
	case !m.For(d.Hardware):
		return ErrHardware
	case !equalText(im.Component, Component):
		return ErrComponent
	case im.Format != d.Format:
		return ErrFormat
	case im.Format == FormatESP && im.Chip != d.Chip:
		return ErrChip
	}
	if err := f.check(m); err != 0 {
		return err
	}
	switch {
	case im.HasSlot && im.Slot != d.Slot:
		return ErrSlot
	case im.HasAddress && im.Address != d.SlotAddress:
		return ErrAddress
	case im.Size > d.SlotSize:
		return ErrTooLarge
	case im.Stream(d.Chunk) == nil:
		return ErrChunk
	}
	return 0
}

// check judges the numbers: epoch before sequence, so that one release that was
// signed with the largest sequence does not end all updates.
func (f *Floors) check(m *Manifest) Error {
	if f.Listed && m.Epoch != f.ListEpoch || m.Epoch < f.Epoch {
		return ErrEpoch
	}
	inProgress := f.InProgress != 0 && m.Epoch == f.InProgressEpoch && m.Sequence == f.InProgress
	if !inProgress {
		if m.Epoch == f.Epoch && m.Sequence <= f.Sequence {
			return ErrSequence
		}
		// Only something newer displaces what is on its way: offers that alternate
		// would wear out the flash.
		if f.InProgress != 0 && (m.Epoch < f.InProgressEpoch || m.Epoch == f.InProgressEpoch && m.Sequence < f.InProgress) {
			return ErrProgress
		}
	}
	if f.Listed && m.SecurityVersion < f.ListFloor || m.SecurityVersion < f.Security {
		return ErrSecurity
	}
	return 0
}

func equalText(p []byte, s string) bool {
	if len(p) != len(s) {
		return false
	}
	for i := range p {
		if p[i] != s[i] {
			return false
		}
	}
	return true
}
