package inspect

import (
	"encoding/binary"
	"fmt"

	"github.com/runnel-fota/runnel/core/esp32"
)

// bootloaderAt is where ESP32 and ESP32-S2 have their bootloader; later chips
// have it at 0 or 0x2000.
const bootloaderAt = 0x1000

// flashAt says whether data is a flash chip's content, or the beginning of one that
// a tool merged: base is the flash address of its first byte, size the chip's in
// bytes. The partition table tells, or, where that is bad, a bootloader in its
// place in a file that is as large as a chip.
func flashAt(data []byte) (base, size int64, ok bool) {
	whole := len(data) >= 1<<20 && len(data) <= MaxSize && len(data)&(len(data)-1) == 0
	var h esp32.ImageHeader
	image := h.Parse(data) == nil
	var im *Image
	var bad error
	if image {
		im, _, bad = ReadImage(data)
	}
	for _, base := range []int64{0, bootloaderAt} {
		at := esp32.TableOffset - base
		if int64(len(data)) < at+32 {
			continue
		}
		var t esp32.Table
		table := binary.LittleEndian.Uint16(data[at:]) == 0x50AA
		switch {
		case base != 0 && !image: // a merged file that begins at 0x1000 begins with a bootloader
			continue
		case image && bad == nil && im.Length > at: // an app, over the table's place
			continue
		case image && !im.isBootloader(data):
			if _, err := t.Parse(data[at:], MaxSize); err != nil {
				continue
			}
		}
		boot := h.Parse(data) == nil
		if base == 0 && !boot {
			boot = h.Parse(data[bootloaderAt:]) == nil
		}
		if !table && !(base == 0 && whole && boot) {
			continue
		}
		size = int64(len(data)) + base
		if !whole { // the chip is larger than what was merged
			size = max(size, MaxSize)
			if f := int64(h.FlashSize()); boot && f >= int64(len(data))+base {
				size = f
			}
		}
		return base, size, true
	}
	return 0, 0, false
}

func flashDump(data []byte, base, size int64) *Report {
	r := &Report{Kind: KindFlash}
	var t esp32.Table
	i, err := t.Parse(data[esp32.TableOffset-base:], uint32(size))
	if err != nil {
		at := int64(esp32.TableOffset) - base + int64(i)*32
		r.Error, r.Offset = fmt.Sprintf("partition table: %v: entry %d at offset 0x%x", err, i, at), &at
		return r
	}
	r.table(&t)
	// in is a partition's bytes, as far as the file has them.
	in := func(p *esp32.Partition) []byte {
		from := min(max(int64(p.Offset)-base, 0), int64(len(data)))
		to := min(max(int64(p.Offset)+int64(p.Size)-base, from), int64(len(data)))
		return data[from:to]
	}
	if p := t.Find(esp32.TypeData, esp32.SubtypeOTA); p != nil {
		if d := in(p); len(d) >= esp32.OTADataSize {
			r.otadata(d, d[esp32.SectorSize:])
		}
	}
	for i := range t.P[:t.N] {
		p := &t.P[i]
		if p.Type != esp32.TypeApp {
			continue
		}
		s := Slot{Name: text(p.Name())}
		switch d := in(p); {
		case p.Size == 0:
			s.Error = "has no bytes"
		case len(d) == 0:
			s.Error = "not in this file"
		case d[0] == 0xFF:
			s.Error = "erased"
		default:
			im, at, err := ReadImage(d)
			s.Image = im
			if err != nil {
				s.Error = damaged(err, int64(p.Offset)-base, at)
				if len(im.Segments) == 0 {
					s.Image = nil
				}
			}
		}
		r.Slots = append(r.Slots, s)
	}
	return r
}
