package ingest

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/runnel-fota/runnel/core/esp32"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/release"
)

// The app descriptor, esp_app_desc_t: where it stands in a file, its magic word
// and its texts (docs of the image format, 3.2). Images of before 2019 have none.
const (
	descOffset  = 0x20
	descMagic   = 0xABCD5432
	descText    = 32 // bytes of each text
	descVersion = 0x30
	descProject = 0x50
	descIDF     = 0x90
	headBytes   = descIDF + descText

	// tableOffset is where a partition table stands in a whole flash, and tableMagic its first word.
	tableOffset = 0x8000
	tableMagic  = 0x50AA
)

// intake is a reader that ends with io.EOF only if what it read is the image
// that was announced and one that a bootloader takes; else it ends with what is
// wrong with it, as soon as that is known. Whoever stores what it reads stores
// nothing else, and reads it once.
type intake struct {
	src   io.Reader
	meta  Meta
	max   int64
	atEnd func(fleet.Digest) // called once, before the io.EOF of a good image

	check  esp32.ImageCheck
	sha    hash.Hash
	other  bool            // no ESP image, and allowed
	n      int64           // bytes so far
	head   [headBytes]byte // the first bytes
	table  [2]byte         // those at tableOffset
	ended  bool            // read to its end, and good
	digest fleet.Digest    // once ended
	err    error           // sticks
}

func newIntake(src io.Reader, m Meta, max int64) *intake {
	in := &intake{src: src, meta: m, max: max, sha: sha256.New()}
	in.check.Begin(esp32.AnyChip, uint32(max))
	return in
}

func (in *intake) Read(p []byte) (int, error) {
	if in.err != nil {
		return 0, in.err
	}
	n, err := in.src.Read(p)
	if e := in.take(p[:n]); e != nil {
		in.err = e
		return 0, e
	}
	if errors.Is(err, io.EOF) {
		if in.err = in.end(); in.err == nil {
			in.err = io.EOF
		}
		return n, in.err
	}
	in.err = err
	return n, err
}

// take looks at the next bytes.
func (in *intake) take(p []byte) error {
	if in.n == 0 && len(p) > 0 {
		in.other = in.meta.OtherBytes && p[0] != esp32.ImageMagic
	}
	if in.n < headBytes {
		copy(in.head[in.n:], p)
	}
	for i := range in.table {
		if at := tableOffset + int64(i) - in.n; at >= 0 && at < int64(len(p)) {
			in.table[i] = p[at]
		}
	}
	in.n += int64(len(p))
	switch {
	case in.n > in.max:
		return tooLarge(in.max)
	case in.meta.Size > 0 && in.n > in.meta.Size:
		return fleet.Errorf(fleet.CodeInvalid, "more than the announced %d bytes came", in.meta.Size)
	}
	in.sha.Write(p)
	if in.other {
		return nil
	}
	if err := in.check.Write(p); err != nil {
		return in.bad(err)
	}
	return nil
}

// end judges the whole.
func (in *intake) end() error {
	if in.n == 0 {
		return fleet.Errorf(fleet.CodeInvalid, "the image is empty")
	}
	if in.meta.Size > 0 && in.n != in.meta.Size {
		return fleet.Errorf(fleet.CodeInvalid, "%d bytes were announced, %d came", in.meta.Size, in.n)
	}
	if !in.other {
		if err := in.endESP(); err != nil {
			return err
		}
	}
	in.sha.Sum(in.digest[:0])
	if want := in.meta.Digest; want != nil && *want != in.digest {
		return &fleet.Error{Code: fleet.CodeInvalid, Message: fmt.Sprintf("the image's SHA-256 is %s, announced was %s", in.digest, *want),
			Hint: "it was altered on the way, or it is another file"}
	}
	in.ended = true
	in.atEnd(in.digest)
	return nil
}

// endESP judges the whole as a bootloader would.
func (in *intake) endESP() error {
	if err := in.check.End(); err != nil {
		return in.bad(err)
	}
	if binary.LittleEndian.Uint16(in.table[:]) == tableMagic && in.check.Length() <= tableOffset {
		// A chip that boots from offset 0: its bootloader passes for an image.
		return &fleet.Error{Code: fleet.CodeInvalid, Message: fmt.Sprintf("this is a whole flash, not an app image: a bootloader of %d bytes, and a partition table at byte %d", in.check.Length(), tableOffset),
			Hint: "push the app image alone, e.g. build/PROJECT.bin"}
	}
	return nil
}

// bad says what is wrong with the image, and where.
func (in *intake) bad(err error) error {
	hint := "build it again, or copy it again"
	if errors.Is(err, esp32.ErrMagic) {
		hint = "this is no app image of an ESP chip"
		if release.IsFile(in.head[:]) {
			hint = "this is a release file: publish it as one, without product and version"
		}
	}
	return &fleet.Error{Code: fleet.CodeInvalid, Message: fmt.Sprintf("bad image: %v, at byte %d (0x%X)", err, in.check.Offset(), in.check.Offset()), Hint: hint}
}

// image is what the release says of it.
func (in *intake) image() fleet.Image {
	if in.other {
		return fleet.Image{Digest: in.digest, Size: in.n}
	}
	im := fleet.Image{Digest: in.digest, Size: in.n, Chip: chipName(in.check.Chip())}
	describe(&im, &in.head)
	return im
}

func chipName(chip uint16) string {
	if name := esp32.ChipName(chip); name != "" {
		return name
	}
	return fmt.Sprintf("chip %d", chip)
}

// describe adds what the app descriptor says, if there is one.
func describe(im *fleet.Image, head *[headBytes]byte) {
	if binary.LittleEndian.Uint32(head[descOffset:]) != descMagic {
		return
	}
	text := func(at int) string {
		b, _, _ := bytes.Cut(head[at:at+descText], []byte{0})
		return fleet.CleanText(string(b), descText)
	}
	im.AppVersion, im.Project, im.IDFVersion = text(descVersion), text(descProject), text(descIDF)
}
