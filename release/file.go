package release

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/runnel-fota/runnel/core/esp32"
	"github.com/runnel-fota/runnel/core/manifest"
	"github.com/runnel-fota/runnel/core/stream"
)

// File is what a release file is made of.
type File struct {
	KeyList  []byte // envelope; nil: none
	Manifest []byte // envelope
	Image    io.Reader
	Size     int64 // of the image in bytes
	Derived  []DerivedFile
}

// DerivedFile is a derived stream: its sheet's envelope, then its file.
type DerivedFile struct {
	Sheet  []byte
	Stream io.Reader
	Size   int64 // of the file in bytes
}

// Write writes a release file. It checks nothing: Verify does, and who makes a
// release runs it over what was written.
func Write(w io.Writer, f *File) error {
	if len(f.Derived) > MaxSheets {
		return fmt.Errorf("a release file has %d derived streams at most, not %d", MaxSheets, len(f.Derived))
	}
	t := &tarWriter{w: w}
	if f.KeyList != nil {
		t.member(nameKeyList, bytes.NewReader(f.KeyList), int64(len(f.KeyList)))
	}
	t.member(nameManifest, bytes.NewReader(f.Manifest), int64(len(f.Manifest)))
	t.member(nameImage, f.Image, f.Size)
	for i, d := range f.Derived {
		t.member(sheetName(i), bytes.NewReader(d.Sheet), int64(len(d.Sheet)))
		t.member(streamName(i), d.Stream, d.Size)
	}
	return t.close()
}

// Replace copies a release file with another manifest, and with another key list
// unless keyList is nil. Image and streams go over as they are.
func Replace(w io.Writer, r io.Reader, keyList, manifest []byte) error {
	in, out := &tarReader{r: r}, &tarWriter{w: w}
	for {
		name, size, err := in.next()
		if err == io.EOF {
			return out.close()
		}
		if err != nil {
			return err
		}
		switch name {
		case nameKeyList, nameManifest:
			p, err := in.all()
			if err != nil {
				return err
			}
			if name == nameKeyList {
				if keyList == nil {
					keyList = p
				}
				continue // written before the manifest, whether the file had one or not
			}
			if keyList != nil {
				out.member(nameKeyList, bytes.NewReader(keyList), int64(len(keyList)))
			}
			out.member(nameManifest, bytes.NewReader(manifest), int64(len(manifest)))
		default:
			out.member(name, in, size)
		}
		if out.err != nil {
			return out.err
		}
	}
}

// Spool keeps the image while it is checked: its roots are computed from its end
// to its front.
type Spool interface {
	io.Writer
	io.ReaderAt
}

// Options of Verify. The zero value is good.
type Options struct {
	// Unsigned leaves signatures out: to look at a file, never to publish it.
	Unsigned bool
	// Spool takes the image; nil is a temporary file. What it holds is the image
	// only once Verify was without error.
	Spool Spool
	// Derived is asked for a place for each derived stream, once its sheet is
	// good; nil, or a nil writer: it is checked and dropped.
	Derived func(i int, s *Sheet, envelope []byte) (io.Writer, error)
	// Digests also computes the file digests of the raw streams.
	Digests  bool
	Progress Progress
}

// Contents is what a release file holds, checked.
type Contents struct {
	Trust            *Trust // after the file's key list; nil with Unsigned
	KeyList          []byte // the file's envelope; nil: none
	ManifestEnvelope []byte
	Manifest         *Manifest
	Signers          []ed25519.PublicKey // release keys that counted
	Raw              []RawFile           // with Options.Digests
	Derived          []Derived
}

// Derived is a derived stream of a release file.
type Derived struct {
	Envelope []byte
	Sheet    *Sheet
	Digest   Hash  // SHA-256 of the stream's file
	Length   int64 // of the file in bytes
}

// Digest is the manifest's name: SHA-256 over its envelope.
func (c *Contents) Digest() Hash { return sha256.Sum256(c.ManifestEnvelope) }

// Verify reads a release file from front to back and checks all of it: the key
// list against trust, the manifest's signatures against the newer of the file's
// list and the one in trust, the image's size, digest, roots and, in ESP format,
// everything that the bootloader checks; every sheet's signature, and every
// record of its stream. What it needs of memory does not depend on the file; the
// image goes through o.Spool. trust may be nil with o.Unsigned.
//
// Whether the sequence is above the last one is for the caller, who knows that one.
func Verify(ctx context.Context, r io.Reader, trust *Trust, o Options) (*Contents, error) {
	v := &verification{ctx: ctx, t: &tarReader{r: r}, o: o, c: &Contents{Trust: trust}}
	if trust == nil && !o.Unsigned {
		return nil, ErrNoList
	}
	if o.Spool == nil {
		f, err := os.CreateTemp("", "runnel-image-*")
		if err != nil {
			return nil, err
		}
		defer os.Remove(f.Name())
		defer f.Close()
		v.o.Spool = f
	}
	if err := v.run(); err != nil {
		return nil, err
	}
	return v.c, nil
}

type verification struct {
	ctx context.Context
	t   *tarReader
	o   Options
	c   *Contents
}

func (v *verification) run() error {
	for {
		name, size, err := v.t.next()
		if err == io.EOF {
			return nil
		}
		if err == nil {
			err = v.member(name, size)
		}
		if err != nil {
			return err
		}
	}
}

func (v *verification) member(name string, size int64) error {
	if err := v.ctx.Err(); err != nil {
		return err
	}
	switch name {
	case nameKeyList:
		return v.keyList()
	case nameManifest:
		return v.manifest()
	case nameImage:
		return v.image(size)
	}
	if last := len(v.c.Derived) - 1; last >= 0 && name == streamName(last) {
		return v.stream(last, size)
	}
	return v.sheet()
}

func (v *verification) keyList() (err error) {
	if v.c.KeyList, err = v.t.all(); err != nil {
		return err
	}
	if v.o.Unsigned {
		e, err := ParseEnvelope(v.c.KeyList)
		if err == nil {
			_, err = DecodeKeyList(e.Payload)
		}
		return err
	}
	switch t, err := v.c.Trust.Accept(v.c.KeyList); {
	case errors.Is(err, manifest.ErrOldList):
		// The list that is held is newer: the file is judged by that one.
	case err != nil:
		return err
	default:
		v.c.Trust = t
	}
	return nil
}

func (v *verification) manifest() (err error) {
	c := v.c
	if c.ManifestEnvelope, err = v.t.all(); err != nil {
		return err
	}
	if v.o.Unsigned {
		e, err := ParseEnvelope(c.ManifestEnvelope)
		if err == nil {
			c.Manifest, err = DecodeManifest(e.Payload)
		}
		return err
	}
	c.Manifest, c.Signers, err = c.Trust.Manifest(c.ManifestEnvelope)
	return err
}

func (v *verification) image(size int64) error {
	im := &v.c.Manifest.Image
	if size != int64(im.Size) {
		return fmt.Errorf("%s has %d bytes, the manifest says %d", nameImage, size, im.Size)
	}
	sum := sha256.New()
	check := imageCheck(im)
	buf := make([]byte, 64<<10)
	for done := int64(0); done < size; {
		if err := v.ctx.Err(); err != nil {
			return err
		}
		v.o.Progress.tell("reading the image", done, size)
		p := buf[:min(int64(len(buf)), size-done)]
		if _, err := io.ReadFull(v.t, p); err != nil {
			return err
		}
		sum.Write(p)
		if err := check.write(p); err != nil {
			return err
		}
		if _, err := v.o.Spool.Write(p); err != nil {
			return err
		}
		done += int64(len(p))
	}
	if got := Hash(sum.Sum(nil)); got != im.Digest {
		return fmt.Errorf("%s has the SHA-256 %s, the manifest says %s", nameImage, got, im.Digest)
	}
	if err := check.end(); err != nil {
		return err
	}
	return v.raws()
}

func (v *verification) raws() error {
	im := &v.c.Manifest.Image
	for _, s := range im.Streams {
		root, err := v.raw(im.Size, s.Chunk)
		if err != nil {
			return err
		}
		if root != s.Root {
			return fmt.Errorf("the raw stream in chunks of %d has the root %s, the manifest says %s", s.Chunk, root, s.Root)
		}
	}
	return nil
}

func (v *verification) raw(size, chunk uint32) (Hash, error) {
	if !v.o.Digests {
		return rawRoot(v.ctx, v.o.Spool, stream.Shape{Size: size, Chunk: chunk}, v.o.Progress)
	}
	f, err := DescribeRaw(v.ctx, v.o.Spool, size, chunk, v.o.Progress)
	if err != nil {
		return Hash{}, err
	}
	v.c.Raw = append(v.c.Raw, *f)
	return f.Root, nil
}

func (v *verification) sheet() error {
	i := len(v.c.Derived)
	p, err := v.t.all()
	if err != nil {
		return err
	}
	var s *Sheet
	if v.o.Unsigned {
		var e *manifest.Envelope
		if e, err = ParseEnvelope(p); err == nil {
			s, err = DecodeSheet(e.Payload)
		}
	} else {
		s, err = v.c.Trust.Sheet(p, v.c.Manifest.Product)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", sheetName(i), err)
	}
	if s.ImageRoot != v.c.Manifest.Image.Streams[0].Root {
		return fmt.Errorf("%s is for an image with the root %s", sheetName(i), s.ImageRoot)
	}
	v.c.Derived = append(v.c.Derived, Derived{Envelope: p, Sheet: s})
	return nil
}

func (v *verification) stream(i int, size int64) error {
	d := &v.c.Derived[i]
	shape := stream.Shape{Size: d.Sheet.Length, Chunk: d.Sheet.Chunk}
	if uint64(size) != shape.FileLen() {
		return fmt.Errorf("%s has %d bytes, by its sheet it has %d", streamName(i), size, shape.FileLen())
	}
	var r io.Reader = v.t
	if v.o.Derived != nil {
		w, err := v.o.Derived(i, d.Sheet, d.Envelope)
		if err != nil {
			return err
		}
		if w != nil {
			r = io.TeeReader(r, w)
		}
	}
	sum, err := CheckStream(v.ctx, r, shape, d.Sheet.Root, v.o.Progress)
	if err != nil {
		return fmt.Errorf("%s: %w", streamName(i), err)
	}
	d.Digest, d.Length = sum, size
	return nil
}

// espCheck is the bootloader's check of an image in ESP format, nothing for others.
type espCheck struct {
	on bool
	c  esp32.ImageCheck
}

func imageCheck(im *Image) *espCheck {
	e := &espCheck{on: im.Format == manifest.FormatESP}
	e.c.Begin(im.Chip, im.Size)
	return e
}

func (e *espCheck) write(p []byte) error {
	if !e.on {
		return nil
	}
	if err := e.c.Write(p); err != nil {
		return e.wrap(err)
	}
	return nil
}

func (e *espCheck) end() error {
	if !e.on {
		return nil
	}
	if err := e.c.End(); err != nil {
		return e.wrap(err)
	}
	return nil
}

func (e *espCheck) wrap(err error) error {
	return fmt.Errorf("%s: %w, at offset %d of the image", nameImage, err, e.c.Offset())
}
