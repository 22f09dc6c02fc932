package sqlstore

import (
	"context"
	"time"

	"github.com/runnel-fota/runnel/internal/fleet"
)

var _ fleet.V1Policies = (*Store)(nil)

// AllowV1 implements fleet.V1Policies.
func (s *Store) AllowV1(ctx context.Context, product string, allow bool, now time.Time) error {
	if err := fleet.ValidateProduct(product); err != nil {
		return err
	}
	return s.write(ctx, func(t *tx) error {
		// Without a row the product takes unsigned images, and goes on to.
		if _, err := t.Exec(`INSERT INTO products (name, signed_only, allow_v1, added_at, changed_at) VALUES (?1, 0, ?2, ?3, ?3)
 ON CONFLICT (name) DO UPDATE SET allow_v1 = excluded.allow_v1, changed_at = excluded.changed_at`, product, flag(allow), micros(now)); err != nil {
			return err
		}
		detail := product + " is not served over v1 once it is signed"
		if allow {
			detail = product + " is served over v1 too"
		}
		if err := addEvent(t, fleet.Event{Time: now, Name: fleet.EventPolicy, Detail: detail, Proven: true}); err != nil {
			return err
		}
		return s.catalogueChanged(t)
	})
}

// WithoutV1 implements fleet.V1Policies.
func (s *Store) WithoutV1(ctx context.Context) (map[string]bool, error) {
	without := map[string]bool{}
	err := s.db.Read(ctx, "policies", func(v Runner) error {
		names, err := Collect(func(row Scanner) (name string, err error) { return name, row.Scan(&name) })(
			v.Query("SELECT name FROM products WHERE signed_only = 1 AND allow_v1 = 0"))
		for _, n := range names {
			without[n] = true
		}
		return err
	})
	return without, err
}
