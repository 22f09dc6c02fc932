package v1

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// catalog is all releases in memory, read again when the generation moved.
type catalog struct {
	source   fleet.Catalogue
	rollouts fleet.RolloutCatalogue // nil: there are none
	now      atomic.Pointer[releases]
	mu       sync.Mutex // one reader at a time
}

// releases is a snapshot; nothing in it changes.
type releases struct {
	generation int64
	*fleet.V1Catalogue
}

// get is of generation gen or later; 0: of the one that is now.
func (c *catalog) get(ctx context.Context, gen int64) (*releases, error) {
	if gen == 0 {
		var err error
		if gen, err = c.source.Generation(ctx); err != nil {
			return nil, err
		}
	}
	if r := c.now.Load(); r != nil && r.generation >= gen {
		return r, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if r := c.now.Load(); r != nil && r.generation >= gen {
		return r, nil
	}
	gen, list, err := c.source.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	var rollouts fleet.RolloutSnapshot
	if c.rollouts != nil {
		if rollouts, err = c.rollouts.RolloutSnapshot(ctx); err != nil {
			return nil, err
		}
		// The older of both: where one moved between, the next call reads both again.
		gen = min(gen, rollouts.Generation)
	}
	r := &releases{generation: gen, V1Catalogue: fleet.NewV1Catalogue(list, rollouts)}
	c.now.Store(r)
	return r, nil
}

// published is the release if devices may have it.
func (r *releases) published(id int64) *fleet.Release {
	rel := r.ByID[id]
	if rel == nil || rel.State != fleet.ReleasePublished {
		return nil
	}
	return rel
}

// going is the release if chunks of it may be served: not while its rollout is paused,
// nor once it was taken back.
func (r *releases) going(id int64) *fleet.Release {
	if r.Plan.Holds(id) {
		return nil
	}
	return r.published(id)
}
