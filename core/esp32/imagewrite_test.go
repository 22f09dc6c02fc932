package esp32

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"testing"
)

// TestImageGolden is an image byte for byte: two segments, no hash, then with one.
func TestImageGolden(t *testing.T) {
	h := ImageHeader{Segments: 2, SPIMode: 2, SPIFreqSize: 0x2F, Entry: 0x40081234, WPPin: 0xEE, Drive: [3]byte{1, 2, 3}, Chip: ChipESP32C3,
		MinRevLegacy: 3, MinRev: 300, MaxRev: 399, Reserved: [4]byte{4, 5, 6, 7}}
	const want = "e902022f34120840" + "ee010203" + "0500" + "03" + "2c01" + "8f01" + "04050607" + "00" + // header
		"0000383f" + "04000000" + "01020408" + // segment 0
		"00003840" + "08000000" + "1020408000000000" + // segment 1
		"0000000000000000000000" + "10" // padding; 0xEF xor 0x0F xor 0xF0
	img, err := write(&h, []part{{0x3F380000, []byte{1, 2, 4, 8}}, {0x40380000, []byte{0x10, 0x20, 0x40, 0x80, 0, 0, 0, 0}}}, 3)
	if got := hex.EncodeToString(img); err != nil || got != want {
		t.Fatalf("%v\n%s, want\n%s", err, got, want)
	}
	h.HashAppended = 1
	img, err = write(&h, []part{{0x3F380000, []byte{1, 2, 4, 8}}, {0x40380000, []byte{0x10, 0x20, 0x40, 0x80, 0, 0, 0, 0}}}, 1)
	sum := sha256.Sum256(img[:len(img)-32])
	if err != nil || !bytes.Equal(img[len(img)-32:], sum[:]) || img[23] != 1 {
		t.Fatalf("%v\n% X", err, img)
	}
	var back ImageHeader
	if err := back.Parse(img); err != nil || back != h || back.FlashSize() != 4<<20 {
		t.Errorf("%v, %+v", err, back)
	}
}

type part struct {
	addr uint32
	data []byte
}

// write builds an image from its parts, data in pieces.
func write(h *ImageHeader, parts []part, piece int) ([]byte, error) {
	var w ImageWriter
	var head [HeaderSize]byte
	if err := w.Begin(h, &head); err != nil {
		return nil, err
	}
	img := head[:]
	for _, s := range parts {
		var seg [SegmentHeaderSize]byte
		if err := w.Segment(s.addr, uint32(len(s.data)), &seg); err != nil {
			return nil, err
		}
		img = append(img, seg[:]...)
		for i := 0; i < len(s.data); i += piece {
			p := s.data[i:min(i+piece, len(s.data))]
			if err := w.Data(p); err != nil {
				return nil, err
			}
			img = append(img, p...)
		}
		if int(w.Offset()) != len(img) {
			return nil, errors.New("offset is wrong")
		}
	}
	var tail [TailSize]byte
	for i := range tail {
		tail[i] = 0xAA // what was there must not matter
	}
	n, err := w.End(&tail)
	return append(img, tail[:n]...), err
}

// TestImageWriterShelf: what the bootloader would refuse is not written.
func TestImageWriterShelf(t *testing.T) {
	data := make([]byte, 8)
	for _, c := range []struct {
		name string
		do   func(w *ImageWriter, begin func(n uint8) error, seg func(addr, size uint32) error, end func() error) error
		want error
	}{
		{"no segment", func(w *ImageWriter, begin func(uint8) error, seg func(uint32, uint32) error, end func() error) error {
			return begin(0)
		}, ErrSegments},
		{"seventeen segments", func(w *ImageWriter, begin func(uint8) error, seg func(uint32, uint32) error, end func() error) error {
			return begin(17)
		}, ErrSegments},
		{"one segment more than the header says", func(w *ImageWriter, begin func(uint8) error, seg func(uint32, uint32) error, end func() error) error {
			return errors.Join(begin(1), seg(0, 0), seg(0, 0))
		}, ErrSegments},
		{"one segment less", func(w *ImageWriter, begin func(uint8) error, seg func(uint32, uint32) error, end func() error) error {
			return errors.Join(begin(2), seg(0, 0), end())
		}, ErrTruncated},
		{"length odd", func(w *ImageWriter, begin func(uint8) error, seg func(uint32, uint32) error, end func() error) error {
			return errors.Join(begin(1), seg(0, 6))
		}, ErrSegmentSize},
		{"segment of 16 MiB", func(w *ImageWriter, begin func(uint8) error, seg func(uint32, uint32) error, end func() error) error {
			return errors.Join(begin(1), seg(0, 16<<20))
		}, ErrSegmentSize},
		{"mapped at the wrong place", func(w *ImageWriter, begin func(uint8) error, seg func(uint32, uint32) error, end func() error) error {
			return errors.Join(begin(1), seg(0x3F400024, 8))
		}, ErrMapping},
		{"more data than the segment", func(w *ImageWriter, begin func(uint8) error, seg func(uint32, uint32) error, end func() error) error {
			return errors.Join(begin(1), seg(0, 4), w.Data(data))
		}, ErrTooLong},
		{"less data than the segment", func(w *ImageWriter, begin func(uint8) error, seg func(uint32, uint32) error, end func() error) error {
			return errors.Join(begin(1), seg(0, 12), w.Data(data), end())
		}, ErrTruncated},
		{"next segment before the end of one", func(w *ImageWriter, begin func(uint8) error, seg func(uint32, uint32) error, end func() error) error {
			return errors.Join(begin(2), seg(0, 12), seg(0, 12))
		}, ErrTruncated},
		{"not begun", func(w *ImageWriter, begin func(uint8) error, seg func(uint32, uint32) error, end func() error) error {
			return end()
		}, ErrTruncated},
		{"goes on after an error", func(w *ImageWriter, begin func(uint8) error, seg func(uint32, uint32) error, end func() error) error {
			first := errors.Join(begin(1), seg(0, 6))
			return errors.Join(first, seg(0, 8), w.Data(data), end())
		}, ErrSegmentSize},
		{"as it should be", func(w *ImageWriter, begin func(uint8) error, seg func(uint32, uint32) error, end func() error) error {
			return errors.Join(begin(1), seg(0x3F400020, 8), w.Data(data), end())
		}, nil},
	} {
		var w ImageWriter
		var head [HeaderSize]byte
		var sh [SegmentHeaderSize]byte
		var tail [TailSize]byte
		err := c.do(&w, func(n uint8) error { return w.Begin(&ImageHeader{Segments: n}, &head) },
			func(addr, size uint32) error { return w.Segment(addr, size, &sh) },
			func() error { _, err := w.End(&tail); return err })
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

// TestDescriptors holds both against their bytes: each byte of the pattern has a
// field to live in.
func TestDescriptors(t *testing.T) {
	p := make([]byte, AppDescSize)
	for i := range p {
		p[i] = byte(i)
	}
	copy(p, []byte{0x32, 0x54, 0xCD, 0xAB})
	var d AppDesc
	var out [AppDescSize]byte
	if !d.Parse(p) || d.SecureVersion != 0x07060504 || d.Version[0] != 16 || d.Project[0] != 48 || d.Time[0] != 80 || d.Date[0] != 96 ||
		d.IDFVersion[0] != 112 || d.ELFSHA256[0] != 144 || d.MinBlockRev != 0xB1B0 || d.MaxBlockRev != 0xB3B2 || d.MMUPageLog2 != 180 || d.SPIMode != 181 {
		t.Errorf("%+v", d)
	}
	if d.Encode(&out); !bytes.Equal(out[:], p) {
		t.Errorf("written again: % X", out)
	}
	q := make([]byte, BootDescSize)
	for i := range q {
		q[i] = byte(i)
	}
	q[0], q[8] = 80, 'v'
	var b BootDesc
	var bout [BootDescSize]byte
	if !b.Parse(q) || b.SecureVersion != 3 || b.Version != 0x07060504 || b.IDFVersion[1] != 9 || b.Built[0] != 40 || b.Reserved2[15] != 79 {
		t.Errorf("%+v", b)
	}
	if b.Encode(&bout); !bytes.Equal(bout[:], q) {
		t.Errorf("written again: % X", bout)
	}
	for _, c := range []struct {
		name string
		ok   bool
	}{
		{"app: cut short", d.Parse(p[:255])},
		{"app: magic", d.Parse(append([]byte{0x33}, p[1:]...))},
		{"bootloader: cut short", b.Parse(q[:79])},
		{"bootloader: magic", b.Parse(append([]byte{81}, q[1:]...))},
		{"bootloader: no version", b.Parse(make([]byte, 80))},
	} {
		if c.ok {
			t.Errorf("%s: taken", c.name)
		}
	}
	if string(Text([]byte("abc\x00d"))) != "abc" || string(Text([]byte("abcd"))) != "abcd" {
		t.Error("Text does not end at the first NUL")
	}
}

func FuzzDescriptors(f *testing.F) {
	f.Add(append([]byte{0x32, 0x54, 0xCD, 0xAB}, make([]byte, 252)...))
	f.Add(append([]byte{80, 0, 0, 0, 0, 0, 0, 0, 'v'}, make([]byte, 71)...))
	f.Fuzz(func(t *testing.T, p []byte) {
		var d AppDesc
		var out [AppDescSize]byte
		if d.Parse(p) {
			if d.Encode(&out); !bytes.Equal(out[:], p[:AppDescSize]) {
				t.Fatalf("app: % X", out)
			}
		}
		var b BootDesc
		var bout [BootDescSize]byte
		if b.Parse(p) {
			if b.Encode(&bout); !bytes.Equal(bout[:], p[:BootDescSize]) {
				t.Fatalf("bootloader: % X", bout)
			}
		}
		var h ImageHeader
		var hout [HeaderSize]byte
		if h.Parse(p) == nil {
			if h.Encode(&hout); !bytes.Equal(hout[:], p[:HeaderSize]) {
				t.Fatalf("header: % X", hout)
			}
		}
	})
}

// FuzzImageWriter: what the writer writes, ImageCheck takes, and its header says
// what was said.
func FuzzImageWriter(f *testing.F) {
	f.Add(goodImage()[:HeaderSize], []byte("some bytes of data, sixty-four or less"), uint32(0x3F400020), uint8(3))
	f.Fuzz(func(t *testing.T, head, data []byte, addr uint32, piece uint8) {
		var h ImageHeader
		if h.Parse(head) != nil {
			return
		}
		var parts []part
		for i := range h.Segments {
			n := min(len(data)&^3, int(i)*4)
			parts = append(parts, part{addr, data[:n]})
			data = data[n:]
		}
		img, err := write(&h, parts, int(piece)+1)
		if err != nil {
			return
		}
		c, err := checkImage(append(img, 0xFF), h.Chip, uint32(len(img)), 1<<20)
		if err != nil || int(c.Length()) != len(img) || c.Segments() != len(parts) || !bytes.Equal(img[:HeaderSize], head[:HeaderSize]) {
			t.Fatalf("%v at %d, length %d of %d", err, c.Offset(), c.Length(), len(img))
		}
	})
}
