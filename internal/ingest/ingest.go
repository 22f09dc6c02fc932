// Package ingest takes images in: read once, as they arrive, checked as the
// bootloader would, stored under their SHA-256 and published. What is refused
// leaves nothing behind: no blob, no release.
//
// It knows the domain and the image format (core/esp32), no database, no disk
// and no wire; what it needs of them it declares.
package ingest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
	"time"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// DefaultMaxImage is how large an image may be, in bytes: no chip that boots
// this format maps more than 16 MiB of flash for code and data.
const DefaultMaxImage = 16 << 20

// Blobs is a store of images: internal/blob.Store has these and more, with their contract.
type Blobs interface {
	Put(ctx context.Context, src io.Reader, size int64) (d fleet.Digest, created bool, err error)
	List(ctx context.Context) ([]fleet.Digest, error)
	Delete(ctx context.Context, d fleet.Digest) error
}

// Meta is what the operator says of an image.
type Meta struct {
	Product   string
	Version   string
	ChunkSize int // bytes
	// Digest and Size, where the operator knows them, must be the image's. nil and 0: not said.
	Digest *fleet.Digest
	Size   int64 // bytes
	// OtherBytes takes bytes that don't begin as an ESP image does, as they are and without a
	// chip's name: for boards that are none.
	OtherBytes bool
}

// Service takes images in. Its methods may be called concurrently.
type Service struct {
	blobs    Blobs
	releases fleet.Releases
	max      int64
	now      func() time.Time

	mu sync.Mutex
	// pinned counts the images that are being published, by digest: between the blob and the
	// release nothing else says that the blob is wanted.
	pinned map[fleet.Digest]int
}

// Options of New.
type Options struct {
	Blobs    Blobs
	Releases fleet.Releases
	MaxImage int64 // bytes; 0: DefaultMaxImage
	Now      func() time.Time
}

// New makes a Service. All options but MaxImage are required.
func New(o Options) *Service {
	s := &Service{blobs: o.Blobs, releases: o.Releases, max: o.MaxImage, now: o.Now, pinned: map[fleet.Digest]int{}}
	if s.max == 0 {
		s.max = DefaultMaxImage
	}
	s.max = min(s.max, math.MaxUint32) // the image check counts in 32 bits
	return s
}

// Publish reads an image to its end and publishes it. created is false where the
// same release was published before. Errors: CodeInvalid for an image or a
// description that is wrong, with what and where; CodeTooLarge, CodeNoSpace,
// CodeConflict (fleet.Releases.Publish); an error of r as it is.
func (s *Service) Publish(ctx context.Context, r io.Reader, m Meta) (rel fleet.Release, created bool, err error) {
	if err := s.validate(m); err != nil {
		return fleet.Release{}, false, err
	}
	in := newIntake(r, m, s.max)
	in.atEnd = s.pin
	size := m.Size
	if size == 0 {
		size = -1
	}
	stored, _, err := s.blobs.Put(ctx, in, size)
	if in.ended {
		defer func() { s.unpin(ctx, in.digest, err) }()
	}
	if err != nil {
		return fleet.Release{}, false, err
	}
	if !in.ended || stored != in.digest {
		return fleet.Release{}, false, &fleet.Error{Code: fleet.CodeInternal, Message: "the image store took other bytes than were checked"}
	}
	rel, created, err = s.releases.Publish(ctx, fleet.Release{Product: m.Product, Version: m.Version, Image: in.image(), ChunkSize: m.ChunkSize}, s.now())
	if err != nil {
		return fleet.Release{}, false, err
	}
	return rel, created, nil
}

// AnyBoard is s for a wire whose boards may be other than ESP32: OtherBytes.
func (s *Service) AnyBoard() AnyBoard { return AnyBoard{s} }

// AnyBoard publishes what Service does, and other bytes.
type AnyBoard struct{ s *Service }

// PublishImage is Publish in the shape that wires declare.
func (a AnyBoard) PublishImage(ctx context.Context, product, version string, chunkSize int, digest *fleet.Digest, image io.Reader) (fleet.Release, bool, error) {
	return a.s.Publish(ctx, image, Meta{Product: product, Version: version, ChunkSize: chunkSize, Digest: digest, OtherBytes: true})
}

// PublishImage is Publish in the shape that wires declare.
func (s *Service) PublishImage(ctx context.Context, product, version string, chunkSize int, digest *fleet.Digest, image io.Reader) (fleet.Release, bool, error) {
	return s.Publish(ctx, image, Meta{Product: product, Version: version, ChunkSize: chunkSize, Digest: digest})
}

func (s *Service) validate(m Meta) error {
	if err := fleet.ValidateProduct(m.Product); err != nil {
		return err
	}
	if err := fleet.ValidateVersion(m.Version); err != nil {
		return err
	}
	if _, err := fleet.CheckChunkSize(m.ChunkSize); err != nil {
		return err
	}
	if m.Size < 0 {
		return fleet.Errorf(fleet.CodeInvalid, "an image of %d bytes", m.Size)
	}
	if m.Size > s.max {
		return tooLarge(s.max)
	}
	return nil
}

func tooLarge(limit int64) error {
	return &fleet.Error{Code: fleet.CodeTooLarge, Message: fmt.Sprintf("the image has more than %d bytes", limit),
		Hint: "push the app image alone, not a dump of the whole flash"}
}

// pin is called when an image was read to its end and found good, before its
// blob has a name.
func (s *Service) pin(d fleet.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pinned[d]++
}

// unpin ends what pin began. The last of those who publish the same image
// removes the blob if none of them got a release for it.
func (s *Service) unpin(ctx context.Context, d fleet.Digest, failed error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pinned[d]--
	if s.pinned[d] > 0 {
		return
	}
	delete(s.pinned, d)
	if failed == nil || !certain(failed) {
		return
	}
	ctx = context.WithoutCancel(ctx) // the caller may be gone: that is one of the reasons to clean up
	if used, err := s.used(ctx); err == nil && !used[d] {
		// What can't be removed now, Sweep finds.
		_ = s.blobs.Delete(ctx, d)
	}
}

// certain says whether after this error there is surely no release. Where a
// database failed at the very end its row may turn up after a restart, and the
// blob must not be missing then; if it does not, Sweep removes the blob.
func certain(err error) bool {
	return fleet.CodeOf(err) != fleet.CodeInternal || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// used are the digests that releases refer to, withdrawn ones too.
func (s *Service) used(ctx context.Context) (map[fleet.Digest]bool, error) {
	releases, err := s.releases.ListReleases(ctx, "")
	if err != nil {
		return nil, err
	}
	used := make(map[fleet.Digest]bool, len(releases))
	for _, r := range releases {
		used[r.Image.Digest] = true
	}
	return used, nil
}

// Sweep removes the blobs that no release refers to: a crash between a blob and
// its release leaves one. It returns how many, and the releases whose image is
// missing, which nobody can download.
func (s *Service) Sweep(ctx context.Context) (removed int, missing []fleet.Release, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	releases, err := s.releases.ListReleases(ctx, "")
	if err != nil {
		return 0, nil, err
	}
	blobs, err := s.blobs.List(ctx)
	if err != nil {
		return 0, nil, err
	}
	there := make(map[fleet.Digest]bool, len(blobs))
	for _, d := range blobs {
		there[d] = true
	}
	used := map[fleet.Digest]bool{}
	for _, r := range releases {
		used[r.Image.Digest] = true
		if !there[r.Image.Digest] {
			missing = append(missing, r)
		}
	}
	for _, d := range blobs {
		if used[d] || s.pinned[d] > 0 {
			continue
		}
		if err := s.blobs.Delete(ctx, d); err != nil {
			return removed, missing, err
		}
		removed++
	}
	return removed, missing, nil
}
