package fleet

import (
	"context"
	"time"
)

// V1Policies keeps which products' releases go out over v1. A product that takes
// signed releases only has none there: v1 has no signatures, and whoever holds a
// v1 key, or the network between, could have its devices take anything. An
// operator whose fleet is on its way to the native wire can allow it.
type V1Policies interface {
	// AllowV1 is an operator's word on a product.
	AllowV1(ctx context.Context, product string, allow bool, now time.Time) error
	// WithoutV1 is the products that take signed releases only and are not allowed on v1.
	WithoutV1(ctx context.Context) (map[string]bool, error)
}

// ForV1 is a catalogue as v1 devices have it: releases of the products that are
// not for them count as withdrawn, and so does a build for one slot: v1 has no word
// for where a device runs from. They are still there: what else a product's name
// decides does not change.
func ForV1(releases []Release, without map[string]bool) []Release {
	out := make([]Release, len(releases))
	for i, r := range releases {
		if without[r.Product] || r.HasSlot {
			r.State = ReleaseWithdrawn
		}
		out[i] = r
	}
	return out
}
