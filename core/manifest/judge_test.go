package manifest

import "testing"

// TestCheck: a row for each cause, and for each border beside it.
func TestCheck(t *testing.T) {
	type all struct {
		m *Manifest
		d *DeviceFacts
		f *Floors
	}
	slot := func(a all, s uint8) { a.m.Image.Slot, a.m.Image.HasSlot = s, true }
	address := func(a all, v uint32) { a.m.Image.Address, a.m.Image.HasAddress = v, true }
	cases := []struct {
		name   string
		change func(a all)
		want   Error
	}{
		{"fits", func(all) {}, 0},
		{"another product", func(a all) { a.d.Product = []byte("acme/pumps") }, ErrProduct},
		{"other hardware", func(a all) { a.d.Hardware = []byte("esp32") }, ErrHardware},
		{"second hardware", func(a all) { a.d.Hardware = []byte{1, 2} }, 0},
		{"no hardware", func(a all) { a.d.Hardware = nil }, ErrHardware},
		{"another component", func(a all) { a.m.Image.Component = []byte("app2") }, ErrComponent},
		{"another format", func(a all) { a.d.Format = FormatRaw }, ErrFormat},
		{"another chip", func(a all) { a.d.Chip = 9 }, ErrChip},
		{"raw has no chip", func(a all) { a.m.Image.Format, a.d.Format, a.d.Chip = FormatRaw, FormatRaw, 9 }, 0},
		{"epoch below the list's", func(a all) { a.f.ListEpoch = 4 }, ErrEpoch},
		{"epoch above the list's", func(a all) { a.f.ListEpoch = 2 }, ErrEpoch},
		{"epoch below the device's, with the list", func(a all) { a.f.Epoch = 4 }, ErrEpoch},
		{"without a list: the device's epoch", func(a all) { a.f.Listed, a.f.ListEpoch = false, 99 }, 0},
		{"without a list: above the device's", func(a all) { a.f.Listed, a.f.Epoch, a.f.Sequence = false, 2, 1<<32-1 }, 0},
		{"without a list: below the device's", func(a all) { a.f.Listed, a.f.Epoch = false, 4 }, ErrEpoch},
		{"sequence confirmed already", func(a all) { a.f.Sequence = 7 }, ErrSequence},
		{"sequence below the confirmed", func(a all) { a.f.Sequence = 8 }, ErrSequence},
		{"a higher epoch: any sequence", func(a all) { a.f.Epoch, a.f.Sequence = 2, 1<<32-1 }, 0},
		{"the one in progress", func(a all) { a.f.InProgress, a.f.InProgressEpoch = 7, 3 }, 0},
		{"the one in progress, confirmed since", func(a all) { a.f.Sequence, a.f.InProgress, a.f.InProgressEpoch = 7, 7, 3 }, 0},
		{"a newer one in progress", func(a all) { a.f.InProgress, a.f.InProgressEpoch = 8, 3 }, ErrProgress},
		{"an older one in progress", func(a all) { a.f.InProgress, a.f.InProgressEpoch = 6, 3 }, 0},
		{"one of a higher epoch in progress", func(a all) { a.f.InProgress, a.f.InProgressEpoch = 1, 4 }, ErrProgress},
		{"one of a lower epoch in progress", func(a all) { a.f.InProgress, a.f.InProgressEpoch = 9, 2 }, 0},
		{"the sequence in progress, of another epoch", func(a all) { a.f.Sequence, a.f.InProgress, a.f.InProgressEpoch = 7, 7, 2 }, ErrSequence},
		{"security below the list's floor", func(a all) { a.f.ListFloor = 5 }, ErrSecurity},
		{"security below the device's", func(a all) { a.f.Security = 5 }, ErrSecurity},
		{"security equal", func(a all) { a.f.Security, a.f.ListFloor = 4, 4 }, 0},
		{"without a list its floor is none", func(a all) { a.f.Listed, a.f.ListFloor = false, 9 }, 0},
		{"the target slot", func(a all) { slot(a, 1) }, 0},
		{"another slot", func(a all) { slot(a, 0) }, ErrSlot},
		{"the target's address", func(a all) { address(a, 0x110000) }, 0},
		{"another address", func(a all) { address(a, 0x10000) }, ErrAddress},
		{"exactly full", func(a all) { a.d.SlotSize = 100_000 }, 0},
		{"a byte too large", func(a all) { a.d.SlotSize = 99_999 }, ErrTooLarge},
		{"the smaller chunk", func(a all) { a.d.Chunk = 1024 }, 0},
		{"no chunk", func(a all) { a.d.Chunk = 1023 }, ErrChunk},
		// What is wrong first is the answer.
		{"product before hardware", func(a all) { a.d.Product, a.d.Hardware = nil, nil }, ErrProduct},
		{"hardware before format", func(a all) { a.d.Hardware, a.d.Format = nil, FormatRaw }, ErrHardware},
		{"chip before epoch", func(a all) { a.d.Chip, a.f.ListEpoch = 9, 9 }, ErrChip},
		{"epoch before sequence", func(a all) { a.f.ListEpoch, a.f.Sequence = 9, 9 }, ErrEpoch},
		{"sequence before security", func(a all) { a.f.Sequence, a.f.Security = 9, 9 }, ErrSequence},
		{"security before slot", func(a all) { a.f.Security = 9; slot(a, 0) }, ErrSecurity},
		{"slot before size", func(a all) { a.d.SlotSize = 1; slot(a, 0) }, ErrSlot},
		{"size before chunk", func(a all) { a.d.SlotSize, a.d.Chunk = 1, 1 }, ErrTooLarge},
	}
	found := map[Error]bool{}
	for _, c := range cases {
		var m Manifest
		if err := m.Parse(enc(goodManifest())); err != 0 {
			t.Fatal(err)
		}
		d := &DeviceFacts{Product: []byte("acme/pump"), Hardware: []byte("esp32c3"), Format: FormatESP, Chip: 5, Slot: 1,
			SlotAddress: 0x110000, SlotSize: 1 << 20, Chunk: 4096}
		f := &Floors{Listed: true, ListEpoch: 3, ListFloor: 4, Epoch: 3, Sequence: 6, Security: 3}
		c.change(all{&m, d, f})
		got := Check(&m, d, f)
		if got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
		found[got] = true
	}
	for e := ErrProduct; e <= ErrChunk; e++ {
		if !found[e] {
			t.Errorf("no row ends in %v", e)
		}
	}
}
