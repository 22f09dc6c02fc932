package fleet

import (
	"fmt"

	"github.com/runnel-fota/runnel/core/manifest"
)

// fits says whether the image may go into a slot.
func (r *nativeRelease) fits(slot int) bool { return !r.m.Image.HasSlot || int(r.m.Image.Slot) == slot }

// unfit is why a device would refuse the release; "": it would not.
func (o *NativeOffers) unfit(r *nativeRelease, product string, a NativeAsk) string {
	if uint64(len(r.Envelope)) > uint64(a.Envelope) {
		return fmt.Sprintf("the manifest has %d bytes with its signatures, the device takes %d", len(r.Envelope), a.Envelope)
	}
	f := manifest.Floors{Epoch: a.Epoch, Sequence: a.Sequence, Security: a.SecurityVersion}
	if o.list != nil {
		var p manifest.Product
		if o.list.Product([]byte(product), &p) {
			f.Listed, f.ListEpoch, f.ListFloor = true, p.Epoch, p.Floor
		}
	}
	if a.Wire == WireSigned && !f.Listed {
		return "the key list does not name the product"
	}
	facts := manifest.DeviceFacts{Product: []byte(product), Hardware: a.Hardware, Format: manifest.FormatRaw, Chunk: a.Chunk}
	if a.ESP {
		facts.Format, facts.Chip = manifest.FormatESP, a.Chip
	}
	target, ok := a.Target()
	if !ok {
		return "it has no slot to write to"
	}
	facts.Slot, facts.SlotSize = uint8(target), a.Slots[target]
	facts.SlotAddress = r.m.Image.Address // a poll does not say where slots are
	switch err := manifest.Check(&r.m, &facts, &f); err {
	case 0:
		return ""
	case manifest.ErrSlot:
		return o.otherSlots(r, target, a.Running)
	default:
		return err.Error()
	}
}

// otherSlots says which slots the builds of the release are for, none of them the target.
func (o *NativeOffers) otherSlots(r *nativeRelease, target, running int) string {
	var slots [manifest.MaxSlot + 1]bool
	n := 0
	for _, b := range o.releases[r.Product] {
		if s := b.m.Image.Slot; b.State == ReleasePublished && b.m.Image.HasSlot && b.SameRelease(r.Release) && !slots[s] {
			slots[s] = true
			n++
		}
	}
	list, word := "", "slot"
	if n > 1 {
		word = "slots"
	}
	for s, there := range slots {
		if !there {
			continue
		}
		if list != "" {
			list += ", "
		}
		list += fmt.Sprint(s)
	}
	if n == 1 && running < len(slots) && slots[running] {
		return fmt.Sprintf("published for %s %s only, which it runs from", word, list)
	}
	return fmt.Sprintf("published for %s %s only, and it writes to slot %d", word, list, target)
}

// stream is the raw stream with the largest chunks of at most so many bytes whose
// root is signed: files of an image that was issued anew are shared.
func (r *nativeRelease) stream(most uint32) (best *Stream) { // F5
	for i := range r.Streams {
		s := &r.Streams[i]
		if s.Kind != StreamRaw || s.Chunk > most || best != nil && best.Chunk > s.Chunk || !r.terms.allows(int(s.Chunk)) {
			continue
		}
		for _, raw := range r.m.Image.Streams[:r.m.Image.NStreams] {
			if raw.Chunk == s.Chunk && string(raw.Root) == string(s.Root[:]) {
				best = s
			}
		}
	}
	return best
}

// noStream is why there is none.
func (r *nativeRelease) noStream(most uint32) string {
	if len(r.terms.Chunks) > 0 {
		return fmt.Sprintf("it has no stream with chunks of at most %d bytes, of those that %s takes (%s)", most, r.Product, r.terms.ChunksText())
	}
	return fmt.Sprintf("it has no stream with chunks of at most %d bytes", most)
}
