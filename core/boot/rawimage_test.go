package boot

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"testing"

	"github.com/runnel-fota/runnel/core/digest"
	"github.com/runnel-fota/runnel/core/flash"
)

// Where the golden image runs: the first slot of a board with 16 KiB in front of it.
const (
	rawLoad  = 0x4000
	rawStack = 0x20004000
)

// linked is a program of n bytes as a linker leaves it.
func linked(n int) []byte {
	bin := make([]byte, n)
	le := binary.LittleEndian
	le.PutUint32(bin[12:], rawLoad)
	le.PutUint32(bin[16:], rawLoad+RawHeaderSize+1)
	le.PutUint32(bin[20:], rawStack)
	for i := RawHeaderSize; i < n; i++ {
		bin[i] = byte(i * 7)
	}
	return bin
}

func sealed(t testing.TB, n int) []byte {
	t.Helper()
	bin := linked(n)
	if err := SealRaw(bin); err != nil {
		t.Fatal(err)
	}
	return bin
}

// The image of docs/format/raw-image.md.
func TestRawGolden(t *testing.T) {
	const want = "524e4c49" + "01" + "20" + "0000" + "28000000" + "00400000" + "21400000" + "00400020" + "ffffffff" + "7cf427c2" +
		"e0e7eef5fc030a11"
	img := sealed(t, 40)
	if got := hex.EncodeToString(img); got != want {
		t.Errorf("sealed\n%s, want\n%s", got, want)
	}
	// The CRC is the usual one, over the whole with its own place as zero.
	zero := bytes.Clone(img)
	copy(zero[28:32], make([]byte, 4))
	if sum := binary.LittleEndian.Uint32(img[28:]); sum != crc32.ChecksumIEEE(zero) {
		t.Errorf("CRC %08x, want %08x", sum, crc32.ChecksumIEEE(zero))
	}
}

// passOf feeds an image in pieces and returns what comes of it.
func passOf(img []byte, piece int, room uint32) (RawHeader, [32]byte, error) {
	var c RawPass
	var h digest.SHA256
	h.Write([]byte("of another image"))
	c.Begin(3, room, &h)
	var first error
	for p := img; len(p) > 0; p = p[min(piece, len(p)):] {
		err := c.Write(p[:min(piece, len(p))])
		if first == nil {
			first = err
		} else if err != first {
			return RawHeader{}, [32]byte{}, errors.New("the first error did not stay")
		}
	}
	err := c.End()
	if first != nil && err != first {
		return RawHeader{}, [32]byte{}, errors.New("End returns another error than Write")
	}
	if err == nil && !c.Done() {
		return RawHeader{}, [32]byte{}, errors.New("sound, and not done")
	}
	var sum [32]byte
	h.Sum(&sum)
	return *c.Header(), sum, err
}

func TestRawPass(t *testing.T) {
	for _, n := range []int{33, 36, 100, 1024, 4099} {
		img := sealed(t, n)
		behind := append(bytes.Clone(img), 0xFF, 0xFF, 0x00, 1, 2, 3, 4)
		for _, piece := range []int{1, 7, 31, 32, 33, 64, 1 << 20} {
			h, sum, err := passOf(behind, piece, uint32(n))
			if err != nil || h.Size != uint32(n) || h.Load != rawLoad || h.Entry != rawLoad+33 || h.Stack != rawStack {
				t.Errorf("%d bytes in pieces of %d: %+v, %v", n, piece, h, err)
			}
			if sum != sha256.Sum256(behind) {
				t.Errorf("%d bytes in pieces of %d: another hash", n, piece)
			}
			if n > 40 {
				if _, _, err := passOf(img[:n-1], piece, uint32(n)); err != ErrRawTruncated {
					t.Errorf("a byte short, in pieces of %d: %v", piece, err)
				}
			}
		}
	}
}

// malformedRaw is a shelf: each image has one defect. Where crc is set, the CRC fits all the same.
var malformedRaw = []struct {
	name string
	crc  bool
	spot func(le binary.ByteOrder, b []byte)
	want error
}{
	{"another magic", true, func(le binary.ByteOrder, b []byte) { b[3] = 'J' }, ErrRawMagic},
	{"magic of the other byte order", true, func(le binary.ByteOrder, b []byte) { copy(b, "ILNR") }, ErrRawMagic},
	{"erased", false, func(le binary.ByteOrder, b []byte) { copy(b, bytes.Repeat([]byte{0xFF}, 32)) }, ErrRawMagic},
	{"a newer format", true, func(le binary.ByteOrder, b []byte) { b[4] = 2 }, ErrRawFormat},
	{"format 0", true, func(le binary.ByteOrder, b []byte) { b[4] = 0 }, ErrRawFormat},
	{"a longer header", true, func(le binary.ByteOrder, b []byte) { b[5] = 36 }, ErrRawFormat},
	{"a flag", true, func(le binary.ByteOrder, b []byte) { b[7] = 0x80 }, ErrRawFormat},
	{"size 0", true, func(le binary.ByteOrder, b []byte) { le.PutUint32(b[8:], 0) }, ErrRawSize},
	{"a header alone", true, func(le binary.ByteOrder, b []byte) { le.PutUint32(b[8:], 32) }, ErrRawSize},
	{"a byte too long", true, func(le binary.ByteOrder, b []byte) { le.PutUint32(b[8:], 101) }, ErrRawTooLong},
	{"size of all bits", true, func(le binary.ByteOrder, b []byte) { le.PutUint32(b[8:], 0xFFFFFFFF) }, ErrRawTooLong},
	{"a byte too short", false, func(le binary.ByteOrder, b []byte) { le.PutUint32(b[8:], 99) }, ErrRawCRC},
	{"a load address between words", true, func(le binary.ByteOrder, b []byte) { le.PutUint32(b[12:], rawLoad+2) }, ErrRawAddress},
	{"past the end of memory", true, func(le binary.ByteOrder, b []byte) {
		le.PutUint32(b[12:], 0xFFFFFFF0)
		le.PutUint32(b[16:], 0x21)
	}, ErrRawAddress},
	{"entry before the image", true, func(le binary.ByteOrder, b []byte) { le.PutUint32(b[16:], rawLoad-1) }, ErrRawAddress},
	{"entry in the header", true, func(le binary.ByteOrder, b []byte) { le.PutUint32(b[16:], rawLoad+31) }, ErrRawAddress},
	{"entry behind the image", true, func(le binary.ByteOrder, b []byte) { le.PutUint32(b[16:], rawLoad+101) }, ErrRawAddress},
	{"no stack", true, func(le binary.ByteOrder, b []byte) { le.PutUint32(b[20:], 0) }, ErrRawAddress},
	{"a stack between words", true, func(le binary.ByteOrder, b []byte) { le.PutUint32(b[20:], rawStack+1) }, ErrRawAddress},
	{"CRC of zero bits", false, func(le binary.ByteOrder, b []byte) { le.PutUint32(b[28:], 0) }, ErrRawCRC},
	{"a bit of the program", false, func(le binary.ByteOrder, b []byte) { b[99] ^= 1 }, ErrRawCRC},
	{"a bit of the reserved word", false, func(le binary.ByteOrder, b []byte) { b[24] ^= 1 }, ErrRawCRC},
}

func TestRawMalformed(t *testing.T) {
	for _, c := range malformedRaw {
		img := sealed(t, 100)
		c.spot(binary.LittleEndian, img)
		if c.crc {
			fixCRC(img)
		}
		for _, piece := range []int{1, 32, 100} {
			if _, sum, err := passOf(img, piece, 100); err != c.want || sum != sha256.Sum256(img) {
				t.Errorf("%s, in pieces of %d: %v, want %v", c.name, piece, err, c.want)
			}
		}
		var h RawHeader
		if err := VerifyRaw(slotOf(t, img, 100), rawLoad, &h, make([]byte, 48)); err != c.want {
			t.Errorf("%s, in a slot: %v, want %v", c.name, err, c.want)
		}
	}
	// The reserved word may say anything to a later format's reader.
	img := sealed(t, 100)
	img[24] = 7
	fixCRC(img)
	if _, _, err := passOf(img, 100, 100); err != nil {
		t.Errorf("a reserved word that is used: %v", err)
	}
}

func fixCRC(img []byte) {
	copy(img[28:32], make([]byte, 4))
	binary.LittleEndian.PutUint32(img[28:], crc32.ChecksumIEEE(img))
}

// slotOf is a slot of `size` bytes with an image in it.
func slotOf(t testing.TB, img []byte, size int) *flash.Area {
	t.Helper()
	f := &bytesFlash{cells: append(bytes.Clone(img), bytes.Repeat([]byte{0xFF}, size)...)[:size]}
	a, err := flash.NewArea(f, 0, uint32(size))
	if err != nil {
		t.Fatal(err)
	}
	return &a
}

// bytesFlash is read only.
type bytesFlash struct {
	cells []byte
	err   error
	after int // reads until err
}

func (f *bytesFlash) Geometry() flash.Geometry {
	return flash.Geometry{Size: uint32(len(f.cells)), EraseSize: 1, ProgramSize: 1, ErasedByte: 0xFF, ErasedReadable: true}
}
func (f *bytesFlash) ReadAt(p []byte, off uint32) error {
	if f.after--; f.err != nil && f.after < 0 {
		return f.err
	}
	copy(p, f.cells[off:])
	return nil
}
func (*bytesFlash) Program([]byte, uint32) error { return flash.ErrProgram }
func (*bytesFlash) Erase(uint32, uint32) error   { return flash.ErrErase }
func (*bytesFlash) Sync() error                  { return nil }

func TestVerifyRaw(t *testing.T) {
	img := sealed(t, 1000)
	for _, n := range []int{32, 33, 64, 1000, 4096} {
		var h RawHeader
		if err := VerifyRaw(slotOf(t, img, 1024), rawLoad, &h, make([]byte, n)); err != nil || h.Size != 1000 || h.Entry != rawLoad+33 {
			t.Errorf("through %d bytes: %+v, %v", n, h, err)
		}
	}
	var h RawHeader
	if err := VerifyRaw(slotOf(t, img, 1024), rawLoad, &h, make([]byte, 31)); err != ErrBuffer {
		t.Errorf("through 31 bytes: %v", err)
	}
	// Linked for the other slot.
	if err := VerifyRaw(slotOf(t, img, 1024), rawLoad+1024, &h, make([]byte, 64)); err != ErrRawAddress {
		t.Errorf("in another place: %v", err)
	}
	for after := range 3 {
		a, err := flash.NewArea(&bytesFlash{cells: img, err: flash.ErrRead, after: after}, 0, 1000)
		if err != nil {
			t.Fatal(err)
		}
		if err := VerifyRaw(&a, rawLoad, &h, make([]byte, 500)); err != flash.ErrRead {
			t.Errorf("read %d fails: %v", after, err)
		}
	}
}

func TestSealRaw(t *testing.T) {
	if err := SealRaw(linked(32)); err != ErrRawSize {
		t.Errorf("a header alone: %v", err)
	}
	code := linked(100)
	copy(code, "\x00\x40\x00\x20")
	if err := SealRaw(code); err != ErrRawMagic {
		t.Errorf("a program that begins with its vectors: %v", err)
	}
	astray := linked(100)
	binary.LittleEndian.PutUint32(astray[16:], 0)
	if err := SealRaw(astray); err != ErrRawAddress {
		t.Errorf("no entry: %v", err)
	}
	again := sealed(t, 100)
	want := bytes.Clone(again)
	if err := SealRaw(again); err != nil || !bytes.Equal(again, want) {
		t.Errorf("sealed twice: %v", err)
	}
}

// FuzzRaw: the pass and the boot stage agree on whatever stands in a slot, in pieces of
// any size, and what they take has a CRC that the standard library finds right.
func FuzzRaw(f *testing.F) {
	img := sealed(f, 100)
	f.Add(img, uint8(7))
	for _, c := range malformedRaw {
		bad := bytes.Clone(img)
		c.spot(binary.LittleEndian, bad)
		fixCRC(bad)
		f.Add(bad, uint8(50))
	}
	f.Fuzz(func(t *testing.T, b []byte, piece uint8) {
		if len(b) < RawHeaderSize {
			return
		}
		h, sum, err := passOf(b, int(piece)+1, uint32(len(b)))
		if sum != sha256.Sum256(b) {
			t.Fatalf("another hash: %v", err)
		}
		var h2 RawHeader
		err2 := VerifyRaw(slotOf(t, b, len(b)), h.Load, &h2, make([]byte, int(piece)+RawHeaderSize))
		if err != err2 || err == nil && h != h2 {
			t.Fatalf("the pass says %v, the boot stage %v", err, err2)
		}
		if err != nil {
			return
		}
		fixed := bytes.Clone(b[:h.Size])
		fixCRC(fixed)
		if !bytes.Equal(fixed, b[:h.Size]) {
			t.Fatal("a wrong CRC was taken")
		}
	})
}
