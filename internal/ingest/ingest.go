// Package ingest takes images and signed releases in: read once, as they arrive,
// checked as the bootloader and a device would, stored under their SHA-256 and
// published. What is refused leaves nothing behind: no blob, no release.
//
// It decides what the server believes: which key list follows which, and by that
// who may sign. It knows the domain, the image format (core/esp32) and the release
// file (release), no database, no disk and no wire; what it needs of them it
// declares.
package ingest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"sync"
	"time"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// DefaultMaxImage is how large an image may be, in bytes: no chip that boots
// this format maps more than 16 MiB of flash for code and data.
const DefaultMaxImage = 16 << 20

// Blobs is a store of images and streams: internal/blob.Store has these and more, with their contract.
type Blobs interface {
	Put(ctx context.Context, src io.Reader, size int64) (d fleet.Digest, created bool, err error)
	Open(ctx context.Context, d fleet.Digest) (*os.File, error)
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
	fleet.Publication
}

// Staged is bytes that are stored and have no name yet: internal/blob.Staged, with its contract.
type Staged interface {
	io.Writer
	io.ReaderAt
	Commit(ctx context.Context) (d fleet.Digest, created bool, err error)
	Abort()
}

// Signed is what signed releases need of a store.
type Signed interface {
	fleet.SignedReleases
	fleet.KeyLists
	fleet.SignedIntake
}

// Service takes images and releases in. Its methods may be called concurrently.
type Service struct {
	blobs       Blobs
	releases    fleet.Releases
	signed      Signed
	derivations fleet.Derivations
	stage       func(ctx context.Context, room int64) (Staged, error)
	keep        func(ctx context.Context, d fleet.Digest) (bool, error)
	max         int64
	now         func() time.Time
	demo        bool

	// publishing is held from the look at the newest key list until what was judged by it is stored.
	publishing sync.Mutex

	mu sync.Mutex
	// pinned counts the blobs that are being published, by digest: between the blob and the
	// release nothing else says that the blob is wanted.
	pinned map[fleet.Digest]int
}

// Options of New.
type Options struct {
	Blobs    Blobs
	Releases fleet.Releases
	Signed   Signed
	// Derivations keeps what AddDerived publishes.
	Derivations fleet.Derivations
	// Stage makes sure of room for so many bytes, 0 where it is not known, and answers a place for
	// them: internal/blob.Stager.
	Stage func(ctx context.Context, room int64) (Staged, error)
	// Keep says of a blob that no release refers to whether another server, on the same blobs and
	// the same database, may be about to publish it: it stays. nil: nobody else uses them.
	Keep     func(ctx context.Context, d fleet.Digest) (bool, error)
	MaxImage int64 // bytes; 0: DefaultMaxImage
	Now      func() time.Time
	// ThrowAway: key lists with the mark of a demo's keys are taken. For the demo's own server.
	ThrowAway bool
}

// New makes a Service. All options but MaxImage are required; without Signed and
// Stage there are images only, without Derivations no AddDerived.
func New(o Options) *Service {
	s := &Service{blobs: o.Blobs, releases: o.Releases, signed: o.Signed, derivations: o.Derivations, stage: o.Stage, keep: o.Keep, max: o.MaxImage, now: o.Now, demo: o.ThrowAway, pinned: map[fleet.Digest]int{}}
	if s.max == 0 {
		s.max = DefaultMaxImage
	}
	if s.keep == nil {
		s.keep = func(context.Context, fleet.Digest) (bool, error) { return false, nil }
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
	in.atEnd = func(d fleet.Digest) { s.pin(d) }
	size := m.Size
	if size == 0 {
		size = -1
	}
	stored, _, err := s.blobs.Put(ctx, in, size)
	if in.ended {
		defer func() { s.unpin(ctx, err, in.digest) }()
	}
	if err != nil {
		return fleet.Release{}, false, err
	}
	if !in.ended || stored != in.digest {
		return fleet.Release{}, false, &fleet.Error{Code: fleet.CodeInternal, Message: "the image store took other bytes than were checked"}
	}
	rel, created, err = s.releases.Publish(ctx, m.Of(fleet.Release{Product: m.Product, Version: m.Version, Image: in.image(), ChunkSize: m.ChunkSize}), s.now())
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
func (s *Service) PublishImage(ctx context.Context, product, version string, chunkSize int, digest *fleet.Digest, image io.Reader, p fleet.Publication) (fleet.Release, bool, error) {
	return s.Publish(ctx, image, Meta{Product: product, Version: version, ChunkSize: chunkSize, Digest: digest, Publication: p})
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
	if err := fleet.ValidateWords(m.Channel, m.Notes); err != nil {
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

// pin is called when what is to be published was found good, before its blobs
// have names.
func (s *Service) pin(digests ...fleet.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range digests {
		s.pinned[d]++
	}
}

// unpin ends what pin began. The last of those who publish the same bytes
// removes their blob if none of them got a release for it.
func (s *Service) unpin(ctx context.Context, failed error, digests ...fleet.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var free []fleet.Digest
	for _, d := range digests {
		if s.pinned[d]--; s.pinned[d] == 0 {
			delete(s.pinned, d)
			free = append(free, d)
		}
	}
	if len(free) == 0 || failed == nil || !certain(failed) {
		return
	}
	ctx = context.WithoutCancel(ctx) // the caller may be gone: that is one of the reasons to clean up
	used, err := s.used(ctx)
	if err != nil {
		return // what can't be removed now, Sweep finds
	}
	for _, d := range free {
		if _, ok := used[d]; ok {
			continue
		}
		if kept, err := s.keep(ctx, d); err == nil && !kept {
			_ = s.blobs.Delete(ctx, d) // the same
		}
	}
}

// certain says whether after this error there is surely no release. Where a
// database failed at the very end its row may turn up after a restart, and the
// blob must not be missing then; if it does not, Sweep removes the blob.
func certain(err error) bool {
	return fleet.CodeOf(err) != fleet.CodeInternal || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}
