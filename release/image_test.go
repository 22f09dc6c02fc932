package release

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"testing"
	"testing/iotest"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/esp32"
	"github.com/runnel-fota/runnel/core/manifest"
)

// rawImage is one with the header, linked to run at load.
func rawImage(t testing.TB, size int, load uint32) []byte {
	t.Helper()
	img := bytes.Repeat([]byte{0xE7}, size)
	le := binary.LittleEndian
	for at, v := range map[int]uint32{0: 0, 12: load, 16: load + boot.RawHeaderSize | 1, 20: 0x20004000} {
		le.PutUint32(img[at:], v)
	}
	if err := boot.SealRaw(img); err != nil {
		t.Fatal(err)
	}
	return img
}

func TestCheckImageAs(t *testing.T) {
	with := func(img []byte, change func(p []byte)) []byte {
		img = bytes.Clone(img)
		change(img)
		return img
	}
	const load = 0x22000
	sealed := rawImage(t, 200_000, load) // read in several pieces
	plain := bytes.Repeat([]byte("program"), 100)
	like := with(plain, func(p []byte) { p[0] = esp32.ImageMagic })
	for name, c := range map[string]struct {
		image  []byte
		format uint8
		is     uint8
		header bool
		err    error // nil with is 0: any
	}{
		"raw":                      {image: plain, is: manifest.FormatRaw},
		"said to be raw":           {image: plain, format: manifest.FormatRaw, is: manifest.FormatRaw},
		"said to be ESP":           {image: plain, format: manifest.FormatESP},
		"begins like ESP":          {image: like},
		"begins like ESP, is raw":  {image: like, format: manifest.FormatRaw, is: manifest.FormatRaw},
		"with the header":          {image: sealed, is: manifest.FormatRaw, header: true},
		"with the header, said so": {image: sealed, format: manifest.FormatRaw, is: manifest.FormatRaw, header: true},
		"with more behind it":      {image: append(bytes.Clone(sealed), 1, 2, 3), is: manifest.FormatRaw, header: true},
		"altered":                  {image: with(sealed, func(p []byte) { p[150_000] ^= 1 }), err: boot.ErrRawCRC},
		"cut":                      {image: sealed[:199_999], err: boot.ErrRawTruncated},
		"cut in the header":        {image: sealed[:20], err: boot.ErrRawTruncated},
		"of another format":        {image: with(sealed, func(p []byte) { p[4] = 2 }), err: boot.ErrRawFormat},
		"with a wrong entry":       {image: with(sealed, func(p []byte) { p[18] = 9 }), err: boot.ErrRawAddress},
		"three bytes of the magic": {image: sealed[:3], is: manifest.FormatRaw},
		"empty":                    {},
	} {
		im, head, err := CheckImageAs(iotest.OneByteReader(bytes.NewReader(c.image)), c.format)
		if c.is == 0 {
			if err == nil || c.err != nil && !errors.Is(err, c.err) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil || im.Format != c.is || im.Digest != sha256.Sum256(c.image) || int(im.Size) != len(c.image) || im.Slot != nil || im.Address != nil ||
			(head != nil) != c.header || c.header && head.Load != load {
			t.Errorf("%s: %+v %v", name, im, err)
		}
	}
}
