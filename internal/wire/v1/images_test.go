package v1

import (
	"context"
	"io"
	"testing"

	"github.com/runnel-fota/runnel/internal/fleet"
)

type noBlobs struct{ err error }

func (n noBlobs) OpenBlob(context.Context, fleet.Digest) (io.ReadCloser, error) { return nil, n.err }

// An image that comes later is told to come later; one that is not there is the
// server's trouble, and no chunk that does not exist.
func TestImageAway(t *testing.T) {
	for code, want := range map[fleet.Code]fleet.Code{fleet.CodeBusy: fleet.CodeBusy, fleet.CodeNoSpace: fleet.CodeBusy, fleet.CodeNotFound: fleet.CodeInternal, fleet.CodeInternal: fleet.CodeInternal} {
		c := newImageCache(noBlobs{fleet.Errorf(code, "away")}, DefaultCacheBytes)
		if _, err := c.get(t.Context(), &fleet.Release{ID: 1, ChunkSize: 1024}); fleet.CodeOf(err) != want {
			t.Errorf("%s: %v", code, err)
		}
	}
}
