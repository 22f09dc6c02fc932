package derive

import (
	"context"
	"fmt"
	"io"

	"github.com/runnel-fota/runnel/core/digest"
	"github.com/runnel-fota/runnel/core/patch"
	"github.com/runnel-fota/runnel/core/stream"
	"github.com/runnel-fota/runnel/release"
)

// Image is an image that is somewhere, and the chunk size of its first raw stream.
type Image struct {
	Bytes io.ReaderAt
	Size  uint32
	Chunk uint32
}

// Prove applies a derived stream as a device does, in memory that depends on no size: it
// must make image out of old, byte for byte, with the memory that its profile says, and
// where a device may go on after a reset it must carry the image's hash. old is not read
// where the sheet is of a compressed image. file is the stream's, whose records were
// checked (release.Verify).
func Prove(ctx context.Context, sheet *release.Sheet, file, old io.ReaderAt, image Image) error {
	words := map[uint8]int{patch.ProfileLarge: patch.LargeWords, patch.ProfileSmall: patch.SmallWords}[sheet.Profile]
	if words == 0 {
		return fmt.Errorf("profile %d of the coder is none that this program knows", sheet.Profile)
	}
	// What was made so far is the image, or there was an error: so it is read from there.
	p := proof{ctx: ctx, image: image, made: window{r: image.Bytes, size: image.Size},
		in: payload{file: file, shape: stream.Shape{Size: sheet.Length, Chunk: sheet.Chunk}}}
	c := patch.Config{New: &p.made, NewSize: image.Size, Out: make([]byte, proveOut), Memory: make([]uint16, words)}
	if sheet.BaseSize > 0 {
		p.old = &window{r: old, size: sheet.BaseSize}
		c.Old, c.OldSize = p.old, sheet.BaseSize
	}
	if err := p.a.Begin(c); err != 0 {
		return err
	}
	for done := false; !done; {
		var err error
		if done, err = p.step(); err != nil {
			return err
		}
	}
	return nil
}

// proof is one stream that is being proven.
type proof struct {
	ctx   context.Context
	a     patch.Applier
	in    payload
	image Image
	old   *window // nil: there is none
	made  window  // of the image
	links map[uint32][patch.LinkSize]byte
	want  [proveOut]byte
}

func (p *proof) step() (done bool, err error) {
	switch p.a.Step() {
	case patch.Hungry:
		if err := p.ctx.Err(); err != nil {
			return false, err
		}
		chunk, err := p.in.next()
		if chunk == nil {
			p.a.End()
		} else {
			p.in.took(p.a.Feed(chunk))
		}
		return false, err
	case patch.Full:
		err := p.compare()
		p.a.Wrote()
		return false, err
	case patch.Restart:
		return false, p.restart()
	case patch.Done:
		rest, err := p.in.next()
		if err == nil && rest != nil {
			err = patch.ErrLong
		}
		if err == nil {
			err = p.compare()
		}
		return true, err
	}
	// What the applier could not read says nothing of the stream.
	if p.old != nil && p.old.err != nil {
		return false, &ReadError{p.old.err}
	}
	if p.made.err != nil {
		return false, &ReadError{p.made.err}
	}
	return false, p.a.Err()
}

// ReadError says that a stream could not be proven because bytes could not be read.
type ReadError struct{ Err error }

func (e *ReadError) Error() string { return e.Err.Error() }
func (e *ReadError) Unwrap() error { return e.Err }

func (p *proof) compare() error {
	out := p.a.Output()
	at, want := p.a.Made()-uint32(len(out)), p.want[:len(out)]
	if err := p.made.ReadAt(want, at); err != nil {
		return &ReadError{err}
	}
	for i := range out {
		if out[i] != want[i] {
			return fmt.Errorf("it makes another image, from byte %d on", at+uint32(i))
		}
	}
	return nil
}

// restart wants the hash in the patch to be that of the image's chain: a device walks by
// it back over what it has.
func (p *proof) restart() (err error) {
	if p.links == nil {
		if p.links, err = links(p.ctx, p.image); err != nil {
			return err
		}
	}
	if p.links[p.a.Made()] != *p.a.Link() {
		return fmt.Errorf("after a reset no device could go on at byte %d: the hash there is not the image's", p.a.Made())
	}
	return nil
}

// linkGrain is where restart points may stand: at multiples of it (docs/format/patch.md), bytes.
const linkGrain = 16 << 10

// links are the hashes of the image's chunks that begin at multiples of linkGrain.
func links(ctx context.Context, im Image) (map[uint32][patch.LinkSize]byte, error) {
	s := stream.Shape{Size: im.Size, Chunk: im.Chunk}
	if !s.Valid() {
		return nil, stream.ErrShape
	}
	out := map[uint32][patch.LinkSize]byte{}
	chunk := make([]byte, im.Chunk)
	var h digest.SHA256
	var link [patch.LinkSize]byte
	var next []byte // nil behind the last
	for i := s.Records(); i > 0; {
		i--
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		c := chunk[:s.ChunkLen(i)]
		if err := readFull(im.Bytes, c, int64(i)*int64(im.Chunk)); err != nil {
			return nil, &ReadError{err}
		}
		stream.Hash(&h, s, i, c, next, &link)
		next = append(next[:0], link[:]...)
		if i*im.Chunk%linkGrain == 0 {
			out[i*im.Chunk] = link
		}
	}
	return out, nil
}

// proveOut is the output buffer, bytes: larger than a device's, for fewer comparisons.
const proveOut = 4096

// payload is the payload in a stream's file, front to back.
type payload struct {
	file  io.ReaderAt
	shape stream.Shape
	i     uint32 // record that comes next
	buf   []byte
	left  []byte // of the last one
}

// next is what is not taken yet of the record at hand, or the next one's; nil at the end.
func (p *payload) next() ([]byte, error) {
	if len(p.left) > 0 || p.i == p.shape.Records() {
		return p.left, nil
	}
	if p.buf == nil {
		p.buf = make([]byte, p.shape.Chunk)
	}
	p.left = p.buf[:p.shape.ChunkLen(p.i)]
	if err := readFull(p.file, p.left, int64(p.i)*int64(p.shape.Chunk+stream.HashSize)); err != nil {
		return nil, &ReadError{fmt.Errorf("record %d: %w", p.i, err)}
	}
	p.i++
	return p.left, nil
}

func (p *payload) took(n int) {
	if p.left = p.left[n:]; len(p.left) == 0 {
		p.left = nil
	}
}

// windowPage and windowPages bound what of an image is at hand, bytes: an applier reads
// single bytes, here and there.
const (
	windowPage  = 4 << 10
	windowPages = 64
)

// window is an image as core/patch reads one, through some pages of it.
type window struct {
	r     io.ReaderAt
	size  uint32
	err   error // of the last read
	pages [windowPages]struct {
		no   uint32 // of the page, from 1; 0: none
		data []byte
	}
}

// ReadAt is patch.Source.
func (w *window) ReadAt(p []byte, off uint32) error {
	if uint64(off)+uint64(len(p)) > uint64(w.size) {
		return io.ErrUnexpectedEOF
	}
	for len(p) > 0 {
		no := off / windowPage
		g := &w.pages[no%windowPages]
		if g.no != no+1 {
			if g.data == nil {
				g.data = make([]byte, windowPage)
			}
			at := no * windowPage
			g.no, g.data = 0, g.data[:min(windowPage, w.size-at)]
			if w.err = readFull(w.r, g.data, int64(at)); w.err != nil {
				return w.err
			}
			g.no = no + 1
		}
		n := copy(p, g.data[off-no*windowPage:])
		p, off = p[n:], off+uint32(n)
	}
	return nil
}

func readFull(r io.ReaderAt, p []byte, off int64) error {
	n, err := r.ReadAt(p, off)
	if n == len(p) {
		return nil // with io.EOF too, at the end
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}
