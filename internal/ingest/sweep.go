package ingest

import (
	"context"
	"crypto/sha256"
	"fmt"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// Fault is something that releases refer to and that is not as it was stored.
type Fault struct {
	What    string // "image", "stream" or "manifest"
	Digest  fleet.Digest
	Release fleet.Release // one that refers to it
	Missing bool          // false: it is there, damaged
	Err     error         // of a damaged one
}

func (f Fault) String() string {
	state := "damaged"
	if f.Missing {
		state = "missing"
	}
	return fmt.Sprintf("the %s %s of %s %s (release %d) is %s", f.What, f.Digest, f.Release.Product, f.Release.Version, f.Release.ID, state)
}

// use is what a blob is to a release.
type use struct {
	what    string
	release fleet.Release
}

// used are the blobs that releases refer to, withdrawn ones too, with one use of each.
func (s *Service) used(ctx context.Context) (map[fleet.Digest]use, error) {
	used, _, err := s.uses(ctx)
	return used, err
}

func (s *Service) uses(ctx context.Context) (map[fleet.Digest]use, []fleet.Release, error) {
	releases, err := s.releases.ListReleases(ctx, "")
	if err != nil {
		return nil, nil, err
	}
	used := make(map[fleet.Digest]use, len(releases))
	of := make(map[int64]fleet.Release, len(releases))
	for _, r := range releases {
		of[r.ID] = r
		used[r.Image.Digest] = use{"image", r}
	}
	if s.signed == nil {
		return used, releases, nil
	}
	streams, err := s.signed.AllStreams(ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, m := range streams {
		if _, ok := used[m.Digest]; !ok {
			used[m.Digest] = use{"stream", of[m.ReleaseID]}
		}
	}
	return used, releases, nil
}

// Sweep removes the blobs that no release refers to: a crash between a blob and
// its release leaves some; but none that Keep wants. It returns how many, and what is
// missing: an image or a stream, which nobody can download, and a manifest that is
// not the one that was signed.
func (s *Service) Sweep(ctx context.Context) (removed int, faults []Fault, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	used, releases, err := s.uses(ctx)
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
	for d, u := range used {
		if !there[d] {
			faults = append(faults, Fault{What: u.what, Digest: d, Release: u.release, Missing: true})
		}
	}
	more, err := s.checkManifests(ctx, releases)
	if err != nil {
		return 0, nil, err
	}
	faults = append(faults, more...)
	for _, d := range blobs {
		if _, ok := used[d]; ok || s.pinned[d] > 0 {
			continue
		}
		switch kept, err := s.keep(ctx, d); {
		case err != nil:
			return removed, faults, err
		case kept:
			continue
		}
		if err := s.blobs.Delete(ctx, d); err != nil {
			return removed, faults, err
		}
		removed++
	}
	return removed, faults, nil
}

// checkManifests wants each signed release's manifest to be the one that was signed.
func (s *Service) checkManifests(ctx context.Context, releases []fleet.Release) (faults []Fault, err error) {
	for _, r := range releases {
		if !r.Signed() || s.signed == nil {
			continue
		}
		f := Fault{What: "manifest", Digest: r.ManifestDigest, Release: r}
		m, err := s.signed.Manifest(ctx, r.ManifestDigest)
		switch {
		case fleet.CodeOf(err) == fleet.CodeNotFound:
			f.Missing = true
		case err != nil:
			return nil, err
		case sha256.Sum256(m.Envelope) == r.ManifestDigest:
			continue
		}
		faults = append(faults, f)
	}
	return faults, nil
}
