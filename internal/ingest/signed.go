package ingest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/runnel-fota/runnel/core/manifest"
	"github.com/runnel-fota/runnel/core/stream"
	"github.com/runnel-fota/runnel/internal/derive"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/release"
)

// MaxRelease is how long a release file may be, in bytes: an image and as many
// derived streams as the format has (docs/format/release-file.md), with what is
// around them.
const MaxRelease = release.MaxImage + release.MaxSheets*(release.MaxImage+release.MaxImage/8) + 1<<20

// tries of a release whose key list moved meanwhile: people publish few.
const tries = 4

// maxReason bounds what is said of a file, in bytes: a name of 64 and two digests fit.
const maxReason = 600

// PublishRelease reads a release file (docs/format/release-file.md) to its end,
// checks all of it and publishes it. size is the file's in bytes, 0 where it is
// not known. A key list in the file is taken if it follows the one that is held.
//
// Nothing has a name before the whole file was found good; then the blobs get
// theirs, and one transaction publishes. created is false where the same file was
// published before. Errors: CodeInvalid for a file that is wrong, with what and
// where; CodeConflict where its version or sequence is taken, or no key list is
// held; CodeTooLarge, CodeNoSpace; an error of r as it is.
func (s *Service) PublishRelease(ctx context.Context, r io.Reader, size int64, p fleet.Publication) (rel fleet.Release, created bool, err error) {
	if err := fleet.ValidateWords(p.Channel, p.Notes); err != nil {
		return fleet.Release{}, false, err
	}
	if size > MaxRelease {
		return fleet.Release{}, false, fleet.Errorf(fleet.CodeTooLarge, "a release file has at most %d bytes", int64(MaxRelease))
	}
	trust, err := s.trust(ctx)
	if err != nil {
		return fleet.Release{}, false, err
	}
	in := &taking{s: s, ctx: ctx, src: &source{r: r}, says: p}
	defer in.abort()
	if err := in.read(trust, size); err != nil {
		return fleet.Release{}, false, in.refused(err)
	}
	if err := in.prove(); err != nil {
		return fleet.Release{}, false, in.refused(err)
	}
	if err := in.buildRaw(); err != nil {
		return fleet.Release{}, false, in.refused(err)
	}
	in.pin()
	defer func() { s.unpin(ctx, err, in.digests...) }()
	if err := in.commit(); err != nil {
		return fleet.Release{}, false, err
	}
	return in.publish(trust)
}

// taking is one release on its way in.
type taking struct {
	s    *Service
	ctx  context.Context // of the one call that it is for
	src  *source
	says fleet.Publication

	c       *release.Contents
	rel     fleet.Release
	image   Staged
	staged  []Staged       // all, image first
	streams []fleet.Stream // of staged[1:], in their order
	digests []fleet.Digest // of staged, each once
}

// source notes what the reader itself said, so that it is not taken for a fault
// of the file.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

func (t *taking) abort() {
	for _, st := range t.staged {
		st.Abort()
	}
}

func (t *taking) place(room int64) (Staged, error) {
	st, err := t.s.stage(t.ctx, room)
	if err != nil {
		return nil, err
	}
	t.staged = append(t.staged, st)
	return st, nil
}

// read checks the file, and stages its image and its derived streams.
func (t *taking) read(trust *release.Trust, size int64) (err error) {
	// Before the first byte is read: a full disk is found here.
	if t.image, err = t.place(min(size, t.s.max)); err != nil {
		return err
	}
	t.c, err = release.Verify(t.ctx, t.src, trust, release.Options{
		Spool: t.image,
		Derived: func(_ int, sheet *release.Sheet, envelope []byte) (io.Writer, error) {
			shape := stream.Shape{Size: sheet.Length, Chunk: sheet.Chunk}
			t.streams = append(t.streams, fleet.Stream{Kind: kindOf(sheet.Kind), Chunk: sheet.Chunk, Length: int64(shape.FileLen()), Root: fleet.Digest(sheet.Root), Sheet: envelope})
			return t.place(int64(shape.FileLen()))
		},
	})
	if err != nil {
		return err
	}
	for i, d := range t.c.Derived {
		t.streams[i].Digest = fleet.Digest(d.Digest)
	}
	m := t.c.Manifest
	if int64(m.Image.Size) > t.s.max {
		return tooLarge(t.s.max)
	}
	if err := fleet.ValidateProduct(m.Product); err != nil {
		return err
	}
	if err := fleet.ValidateVersion(m.Version); err != nil {
		return err
	}
	return t.describe()
}

func kindOf(kind uint8) string {
	if kind == manifest.StreamPatch {
		return fleet.StreamPatch
	}
	return fleet.StreamCompressed
}

// buildRaw makes the raw streams of the image, which no file carries. What comes
// out must have the root that was signed.
func (t *taking) buildRaw() error {
	im := &t.c.Manifest.Image
	for _, raw := range im.Streams {
		shape := stream.Shape{Size: im.Size, Chunk: raw.Chunk}
		st, err := t.place(int64(shape.FileLen()))
		if err != nil {
			return err
		}
		root, file, length, err := release.BuildStream(st, readerAt{t.ctx, t.image}, im.Size, raw.Chunk)
		if err != nil {
			return err
		}
		if root != [32]byte(raw.Root) {
			return fleet.Errorf(fleet.CodeInternal, "the raw stream in chunks of %d was built with another root than was checked", raw.Chunk)
		}
		t.streams = append(t.streams, fleet.Stream{Digest: file, Kind: fleet.StreamRaw, Chunk: raw.Chunk, Length: length, Root: root})
	}
	return nil
}

// readerAt ends with its context.
type readerAt struct {
	ctx context.Context
	r   io.ReaderAt
}

func (r readerAt) ReadAt(p []byte, off int64) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.ReadAt(p, off)
}

func (t *taking) pin() {
	seen := map[fleet.Digest]bool{}
	for i := range t.staged {
		// An image of one chunk is its own stream: one blob for both.
		if d := t.digest(i); !seen[d] {
			seen[d] = true
			t.digests = append(t.digests, d)
		}
	}
	t.s.pin(t.digests...)
}

// digest is what staged[i] must have for a name.
func (t *taking) digest(i int) fleet.Digest {
	if i == 0 {
		return fleet.Digest(t.c.Manifest.Image.Digest)
	}
	return t.streams[i-1].Digest
}

// commit gives all blobs their names. The rows that refer to them come after: a
// crash in between leaves blobs that Sweep removes, and no release without them.
func (t *taking) commit() error {
	for i, st := range t.staged {
		d, _, err := st.Commit(t.ctx)
		if err != nil {
			return err
		}
		if d != t.digest(i) {
			return fleet.Errorf(fleet.CodeInternal, "the image store took other bytes than were checked")
		}
	}
	return nil
}

// publish makes the rows. What was judged by a key list is judged by the newest,
// which may have come while the file did, and by another server's hand until the rows
// are there.
func (t *taking) publish(judged *release.Trust) (r fleet.Release, created bool, err error) {
	t.s.publishing.Lock()
	defer t.s.publishing.Unlock()
	for range tries {
		if r, created, err = t.publishBy(judged); !errors.Is(err, fleet.ErrListMoved) {
			break
		}
	}
	return r, created, err
}

func (t *taking) publishBy(judged *release.Trust) (fleet.Release, bool, error) {
	s := t.s
	held, err := s.trust(t.ctx)
	if err != nil {
		return fleet.Release{}, false, err
	}
	next := t.c.Trust
	if held.Version != judged.Version {
		if next, err = t.judge(held); err != nil {
			return fleet.Release{}, false, t.refused(err)
		}
	}
	// Whose signatures are good is said by the list that the release is published under.
	signers, threshold := next.Signers(t.c.ManifestEnvelope, t.rel.Product)
	t.rel.Checked = fleet.Checked{Signers: strings.Join(signers, " "), Threshold: threshold, Contact: t.c.Manifest.Confirm.Contact}
	if next.Version == held.Version {
		return s.signed.PublishSigned(t.ctx, t.rel, t.c.ManifestEnvelope, t.streams, held.Version, s.now())
	}
	list, products := listOf(next)
	return s.signed.PublishWithList(t.ctx, t.rel, t.c.ManifestEnvelope, t.streams, list, held.Version, products, s.now())
}

// judge holds what was read against another list than it was read with.
func (t *taking) judge(held *release.Trust) (*release.Trust, error) {
	next := held
	if t.c.KeyList != nil {
		switch n, err := held.Accept(t.c.KeyList); {
		case errors.Is(err, manifest.ErrOldList):
		case err != nil:
			return nil, err
		default:
			next = n
		}
	}
	if _, _, err := next.Manifest(t.c.ManifestEnvelope); err != nil {
		return nil, err
	}
	for _, d := range t.c.Derived {
		if _, err := next.Sheet(d.Envelope, t.c.Manifest.Product); err != nil {
			return nil, err
		}
	}
	return next, nil
}

// describe says what the domain knows of the release.
func (t *taking) describe() error {
	m := t.c.Manifest
	im := fleet.Image{Digest: fleet.Digest(m.Image.Digest), Size: int64(m.Image.Size)}
	if m.Image.Format == manifest.FormatESP {
		im.Chip = chipName(m.Image.Chip)
		var head [headBytes]byte
		if _, err := t.image.ReadAt(head[:], 0); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		describe(&im, &head)
	}
	t.rel = fleet.Release{Product: m.Product, Version: m.Version, Image: im, ChunkSize: int(m.Image.Streams[0].Chunk),
		Epoch: m.Epoch, Sequence: m.Sequence, SecurityVersion: m.SecurityVersion, Hardware: hardware(m.Hardware)}
	if s := m.Image.Slot; s != nil {
		t.rel.HasSlot, t.rel.Slot = true, *s
	}
	t.rel = t.says.Of(t.rel)
	return nil
}

// hardware names the hardware for people: text where it is text.
func hardware(list [][]byte) string {
	names := make([]string, 0, len(list))
	for _, h := range list {
		name := string(h)
		if fleet.CleanText(name, len(name)) != name || strings.ContainsAny(name, ", ") {
			name = fmt.Sprintf("%x", h)
		}
		names = append(names, name)
	}
	return strings.Join(names, ", ")
}

// refused is the domain's error for a file that is not taken. What the reader,
// the disk and the context said is nobody's fault of the file.
func (t *taking) refused(err error) error {
	var f *fleet.Error
	var read *derive.ReadError
	switch {
	case t.src.err != nil:
		return t.src.err
	case errors.As(err, &f), errors.As(err, &read), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	}
	return &fleet.Error{Code: fleet.CodeInvalid, Message: fleet.CleanText(err.Error(), maxReason), Hint: hintFor(err)}
}

func hintFor(err error) string {
	var at *release.FileError
	var few *release.ThresholdError
	switch {
	case errors.As(err, &few) && few.Need > 1 && few.Why == "":
		return strconv.Itoa(few.Need-few.Have) + " more must sign: 'runnel sign --add' adds a signature"
	case errors.Is(err, release.ErrThrowAway):
		return "make keys of your own: 'runnel keys init'"
	case errors.Is(err, manifest.ErrThreshold):
		return "'runnel keys list' shows who may sign for the product"
	case errors.Is(err, manifest.ErrNoProduct):
		return "'runnel keys product' puts a product into the key list"
	case errors.Is(err, manifest.ErrEpoch), errors.Is(err, manifest.ErrSecurity):
		return "sign it again with what the newest key list asks for"
	case errors.Is(err, manifest.ErrOtherList), errors.Is(err, manifest.ErrGeneration), errors.Is(err, manifest.ErrRoots),
		errors.Is(err, manifest.ErrOldQuorum), errors.Is(err, manifest.ErrNewQuorum):
		return "the key list in the file does not follow the server's; give it the lists between with 'runnel keys publish'"
	case errors.As(err, &at):
		return "it was altered on the way, or cut: copy it again"
	}
	return "'runnel verify' says the same of the file: copy it again, or make it again"
}
