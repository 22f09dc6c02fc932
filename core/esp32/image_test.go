package esp32

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"testing"
)

// goodImage has two segments, one of them mapped, and a hash.
func goodImage() []byte {
	img := make([]byte, HeaderSize)
	img[0], img[1], img[23] = ImageMagic, 2, 1
	xor := byte(0xEF)
	for _, s := range []struct {
		addr uint32
		n    int
	}{{0x3F400020, 400}, {0x40080000, 64}} {
		img = binary.LittleEndian.AppendUint32(img, s.addr)
		img = binary.LittleEndian.AppendUint32(img, uint32(s.n))
		for i := range s.n {
			img = append(img, byte(i*7))
			xor ^= byte(i * 7)
		}
	}
	for len(img)%16 != 15 {
		img = append(img, 0)
	}
	img = append(img, xor)
	sum := sha256.Sum256(img)
	return append(img, sum[:]...)
}

func checkImage(p []byte, chip uint16, limit uint32, piece int) (ImageCheck, error) {
	var c ImageCheck
	c.Begin(chip, limit)
	for i := 0; i < len(p); i += piece {
		if err := c.Write(p[i:min(i+piece, len(p))]); err != nil {
			return c, err
		}
	}
	// In one line with the return the order would be the compiler's: TinyGo copies first.
	err := c.End()
	return c, err
}

func TestImageCheck(t *testing.T) {
	img := goodImage()
	for _, piece := range []int{1, 3, 16, 4096} {
		c, err := checkImage(append(goodImage(), 1, 2, 3), ChipESP32, 4096, piece) // what trails is ignored
		if err != nil || c.Length() != uint32(len(img)) || c.Segments() != 2 || !c.HasHash() {
			t.Errorf("pieces of %d: %v at %d, length %d", piece, err, c.Offset(), c.Length())
		}
	}
}

func TestImageShelf(t *testing.T) {
	n := len(goodImage())
	for _, c := range []struct {
		name   string
		spoil  func(p []byte) []byte
		limit  uint32
		want   error
		offset int
	}{
		{"magic", func(p []byte) []byte { p[0] = 0xE8; return p }, 4096, ErrMagic, 0},
		{"chip", func(p []byte) []byte { p[12] = 5; return p }, 4096, ErrChip, 12},
		{"no segment", func(p []byte) []byte { p[1] = 0; return p }, 4096, ErrSegments, 1},
		{"seventeen segments", func(p []byte) []byte { p[1] = 17; return p }, 4096, ErrSegments, 1},
		{"segment length odd", func(p []byte) []byte { p[28]++; return p }, 4096, ErrSegmentSize, 28},
		{"segment of 16 MiB", func(p []byte) []byte { p[31] = 1; return p }, 4096, ErrSegmentSize, 28},
		{"mapping", func(p []byte) []byte { p[24] = 0x24; return p }, 4096, ErrMapping, 24},
		{"checksum", func(p []byte) []byte { p[100] ^= 1; return p }, 4096, ErrChecksum, n - 33},
		{"hash", func(p []byte) []byte { p[n-1] ^= 1; return p }, 4096, ErrHash, n - 32},
		{"hash announced by another byte than 1", func(p []byte) []byte { p[23] = 2; return p }, 4096, ErrHash, n - 32},
		{"padding not zero, under the hash", func(p []byte) []byte { p[n-34] = 1; return p }, 4096, ErrHash, n - 32},
		{"nothing", func(p []byte) []byte { return nil }, 4096, ErrTruncated, 0},
		{"cut in the checksum", func(p []byte) []byte { return p[:n-33] }, 4096, ErrTruncated, n - 33},
		{"cut in the header", func(p []byte) []byte { return p[:10] }, 4096, ErrTruncated, 10},
		{"cut in a segment", func(p []byte) []byte { return p[:200] }, 4096, ErrTruncated, 200},
		{"cut in the hash", func(p []byte) []byte { return p[:n-1] }, 4096, ErrTruncated, n - 1},
		{"too long", func(p []byte) []byte { return p }, uint32(n - 1), ErrTooLong, -1},
	} {
		for _, piece := range []int{1, 4096} {
			got, err := checkImage(c.spoil(goodImage()), ChipESP32, c.limit, piece)
			if !errors.Is(err, c.want) || c.offset >= 0 && int(got.Offset()) != c.offset {
				t.Errorf("%s, pieces of %d: %v at %d, want %v at %d", c.name, piece, err, got.Offset(), c.want, c.offset)
			}
		}
	}
}

func FuzzImageCheck(f *testing.F) {
	f.Add(goodImage(), uint8(7))
	f.Fuzz(func(t *testing.T, p []byte, piece uint8) {
		a, err := checkImage(p, AnyChip, 1<<20, int(piece)+1)
		b, err2 := checkImage(p, AnyChip, 1<<20, len(p)+1)
		if !errors.Is(err, err2) && err != err2 || a.Length() != b.Length() {
			t.Fatalf("in pieces %v, whole %v", err, err2)
		}
		if err == nil && (a.Length() > uint32(len(p)) || a.Length()%16 != 0) {
			t.Fatalf("length %d of %d", a.Length(), len(p))
		}
	})
}
