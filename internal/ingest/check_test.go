package ingest

import (
	"context"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// Check reads everything that releases refer to and compares digests. It removes
// nothing: tests ask it what is left after what they did. n is how many objects it looked at.
func (s *Service) Check(ctx context.Context) (n int, faults []Fault, err error) {
	used, releases, err := s.uses(ctx)
	if err != nil {
		return 0, nil, err
	}
	for d, u := range used {
		f := Fault{What: u.what, Digest: d, Release: u.release}
		f.Err = s.blobs.(interface {
			Verify(context.Context, fleet.Digest) error
		}).Verify(ctx, d)
		if err := ctx.Err(); err != nil {
			return n, faults, err
		}
		n++
		if f.Err != nil {
			f.Missing = fleet.CodeOf(f.Err) == fleet.CodeNotFound
			faults = append(faults, f)
		}
	}
	more, err := s.checkManifests(ctx, releases)
	if err != nil {
		return n, faults, err
	}
	for _, r := range releases {
		if r.Signed() {
			n++
		}
	}
	return n, append(faults, more...), nil
}
