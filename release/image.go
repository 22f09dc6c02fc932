package release

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/digest"
	"github.com/runnel-fota/runnel/core/esp32"
	"github.com/runnel-fota/runnel/core/manifest"
)

// CheckImage reads an image of an unknown format: an ESP-IDF app image, which
// must be a good one, or anything else. It answers as CheckImageAs does.
func CheckImage(r io.Reader) (Image, error) {
	im, _, err := CheckImageAs(r, 0)
	return im, err
}

// CheckImageAs reads an image of a format, 0: what its first byte says. An ESP-IDF app
// image must be a good one, and so must a raw image that begins with the header of
// docs/format/raw-image.md; other raw images are taken as they are. It answers its digest
// and size, and such a header, nil where there is none.
func CheckImageAs(r io.Reader, format uint8) (im Image, head *boot.RawHeader, err error) {
	h := sha256.New()
	var e espCheck
	var raw rawCheck
	var size int64
	buf := make([]byte, 64<<10)
	for {
		n, readErr := io.ReadFull(r, buf)
		if size == 0 && n > 0 {
			e.on = format == manifest.FormatESP || format == 0 && buf[0] == esp32.ImageMagic
			e.c.Begin(esp32.AnyChip, maxImage)
			raw.on = !e.on && bytes.HasPrefix(buf[:n], binary.LittleEndian.AppendUint32(nil, boot.RawMagic))
			raw.c.Begin(0, maxImage, &raw.h)
		}
		h.Write(buf[:n])
		if size += int64(n); size > maxImage {
			return im, nil, fmt.Errorf("the image is larger than %d bytes", maxImage)
		}
		if err := errors.Join(e.write(buf[:n]), raw.write(buf[:n])); err != nil {
			return im, nil, err
		}
		if readErr == io.EOF || readErr == io.ErrUnexpectedEOF {
			break
		}
		if readErr != nil {
			return im, nil, readErr
		}
	}
	if size == 0 {
		return im, nil, errors.New("the image is empty")
	}
	if err := errors.Join(e.end(), raw.end()); err != nil {
		return im, nil, err
	}
	im = Image{Format: manifest.FormatRaw, Digest: Hash(h.Sum(nil)), Size: uint32(size)}
	if e.on {
		im.Format, im.Chip = manifest.FormatESP, e.c.Chip()
	}
	if raw.on {
		head = raw.c.Header()
	}
	return im, head, nil
}

// rawCheck is the boot stage's check of a raw image with our header, nothing for others.
type rawCheck struct {
	on bool
	c  boot.RawPass
	h  digest.SHA256
}

func (r *rawCheck) write(p []byte) error {
	if !r.on {
		return nil
	}
	return r.wrap(r.c.Write(p))
}

func (r *rawCheck) end() error {
	if !r.on {
		return nil
	}
	return r.wrap(r.c.End())
}

func (r *rawCheck) wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", nameImage, err)
}
