package sqlite

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/pressly/goose/v3"

	"github.com/runnel-fota/runnel/core/manifest"
	"github.com/runnel-fota/runnel/internal/store/sqlstore"
)

// fillSlots is the step behind migrations/00004_slots.sql.
func fillSlots() *goose.Migration {
	return goose.NewGoMigration(5, &goose.GoFunc{RunTx: slotsOfManifests}, nil)
}

// slotsOfManifests notes for which slot each stored manifest is. One that can't be
// read is left: it is offered to nobody, and fsck says so.
func slotsOfManifests(ctx context.Context, t *sql.Tx) error {
	type row struct {
		id       int64
		envelope []byte
	}
	list, err := sqlstore.Collect(func(s sqlstore.Scanner) (r row, err error) { return r, s.Scan(&r.id, &r.envelope) })(
		t.QueryContext(ctx, "SELECT r.id, m.envelope FROM releases r JOIN manifests m ON m.digest = r.manifest_digest"))
	if err != nil {
		return err
	}
	for _, r := range list {
		var e manifest.Envelope
		var m manifest.Manifest
		if e.Parse(r.envelope) != 0 || m.Parse(e.Payload) != 0 || !m.Image.HasSlot {
			continue
		}
		if _, err := t.ExecContext(ctx, "UPDATE releases SET slot = ? WHERE id = ?", m.Image.Slot, r.id); err != nil {
			return fmt.Errorf("the slot of release %d: %w", r.id, err)
		}
	}
	return nil
}
