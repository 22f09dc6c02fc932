package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// Publish implements fleet.Releases. It logs firmware_hash_verified and
// chunking_started too, as the original server did at an upload.
func (s *Store) Publish(ctx context.Context, r fleet.Release, now time.Time) (out fleet.Release, created bool, err error) {
	if err := validateRelease(r); err != nil {
		return fleet.Release{}, false, err
	}
	if r.Signed() || r.ManifestDigest != (fleet.Digest{}) {
		return fleet.Release{}, false, fleet.Errorf(fleet.CodeInvalid, "a signed release comes with its manifest")
	}
	err = s.write(ctx, func(t *tx) error {
		out, created = fleet.Release{}, false
		old, err := scanRelease(t.Row("SELECT "+releaseColumns+" FROM releases r WHERE r.product = ? AND r.version = ? ORDER BY r.published_at DESC LIMIT 1", r.Product, r.Version))
		if err == nil {
			out = old
			return samePublication(old, r)
		}
		if !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if err := refuseUnsigned(t, r.Product); err != nil {
			return err
		}
		if err := refuseByTerms(t, r, r.ChunkSize); err != nil {
			return err
		}
		if err := insertRelease(t, &r, now); err != nil {
			return err
		}
		im := r.Image
		for _, e := range []fleet.Event{
			{Name: fleet.EventUploaded, Detail: fmt.Sprintf("%s %s, %d bytes", r.Product, r.Version, im.Size)},
			{Name: fleet.EventHashVerified, Detail: "SHA-256 " + im.Digest.String()},
			{Name: fleet.EventChunkingStarted, Detail: fmt.Sprintf("%d chunks of %d bytes", r.Chunks(), r.ChunkSize)},
		} {
			e.Time, e.Version, e.Proven = now, r.Version, true
			if err := addEvent(t, e); err != nil {
				return err
			}
		}
		out, created = r, true
		return s.catalogueChanged(t)
	})
	if err != nil {
		return fleet.Release{}, false, err
	}
	return out, created, nil
}

// insertRelease stores r and sets its id, state and stamp.
func insertRelease(t *tx, r *fleet.Release, now time.Time) error {
	last, err := lastStamp(t)
	if err != nil {
		return err
	}
	if r.State != fleet.ReleaseDraft {
		r.State = fleet.ReleasePublished
	}
	r.PublishedAt = fleet.NextPublish(now, last)
	im := r.Image
	var manifest []byte // NULL
	checked := ""
	if r.Signed() {
		manifest = r.ManifestDigest[:]
		if checked, err = checkedColumn(*r); err != nil {
			return err
		}
	}
	return t.Row(`INSERT INTO releases (product, version, digest, size, chip, project, app_version, idf_version, chunk_size, state, published_at,
 epoch, sequence, security_version, hardware, manifest_digest, slot, draft, notes, channel, checked) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id`,
		r.Product, r.Version, im.Digest[:], im.Size, im.Chip, im.Project, im.AppVersion, im.IDFVersion, r.ChunkSize, string(fleet.ReleasePublished), micros(r.PublishedAt),
		r.Epoch, r.Sequence, r.SecurityVersion, r.Hardware, manifest, slotColumn(*r), flag(r.State == fleet.ReleaseDraft), r.Notes, r.Channel, checked).Scan(&r.ID)
}

func validateRelease(r fleet.Release) error {
	if err := fleet.ValidateProduct(r.Product); err != nil {
		return err
	}
	if err := fleet.ValidateVersion(r.Version); err != nil {
		return err
	}
	if _, err := fleet.CheckChunkSize(r.ChunkSize); err != nil {
		return err
	}
	if r.Image.Size <= 0 {
		return fleet.Errorf(fleet.CodeInvalid, "the image is empty")
	}
	return fleet.ValidateWords(r.Channel, r.Notes)
}

// samePublication: a release is published once. The same again is no mistake.
func samePublication(old, again fleet.Release) error {
	e := &fleet.Error{Code: fleet.CodeConflict, Hint: "publish it under another version"}
	switch {
	case old.Signed():
		e.Message = fmt.Sprintf("%s %s is published already, as a signed release", old.Product, old.Version)
	case old.Image.Digest != again.Image.Digest:
		e.Message = fmt.Sprintf("%s %s is published already, with another image", old.Product, old.Version)
	case old.ChunkSize != again.ChunkSize:
		e.Message = fmt.Sprintf("%s %s is published already, with chunks of %d bytes", old.Product, old.Version, old.ChunkSize)
	case old.State == fleet.ReleaseWithdrawn:
		e.Message = fmt.Sprintf("%s %s was published and withdrawn", old.Product, old.Version)
	default:
		return nil
	}
	return e
}

// lastStamp is the latest that any device may have been shown: a device without a
// product may come to another one, so all of them count.
func lastStamp(t *tx) (time.Time, error) {
	var published, retry int64
	err := t.Row(`SELECT (SELECT coalesce(max(published_at), 0) FROM releases), (SELECT coalesce(max(retry_at), 0) FROM devices)`).Scan(&published, &retry)
	return fromMicros(max(published, retry)), err
}

// catalogueChanged raises the generation with the transaction.
func (s *Store) catalogueChanged(t *tx) error {
	return t.Row("UPDATE catalogue SET generation = generation + 1 WHERE id = 1 RETURNING generation").Scan(&t.generation)
}

// Release implements fleet.Releases.
func (s *Store) Release(ctx context.Context, id int64) (fleet.Release, error) {
	r, err := scanRelease(s.db.Row(ctx, "SELECT "+releaseColumns+" FROM releases r WHERE r.id = ?", id))
	return r, s.db.Wrap("release", notFound(err, "no release has the number %d", id))
}

// ReleaseByVersion implements fleet.Releases.
func (s *Store) ReleaseByVersion(ctx context.Context, product, version string) (fleet.Release, error) {
	r, err := scanRelease(s.db.Row(ctx, "SELECT "+releaseColumns+" FROM releases r WHERE r.product = ? AND r.version = ? ORDER BY r.published_at DESC LIMIT 1", product, version))
	return r, s.db.Wrap("release", notFound(err, "%s has no release %s", product, version))
}

// ListReleases implements fleet.Releases.
func (s *Store) ListReleases(ctx context.Context, product string) (list []fleet.Release, err error) {
	err = s.db.Read(ctx, "releases", func(v Runner) error {
		list, err = listReleases(v, product)
		return err
	})
	return list, err
}

func listReleases(v Runner, product string) ([]fleet.Release, error) {
	return Collect(scanRelease)(v.Query("SELECT "+releaseColumns+" FROM releases r WHERE ?1 = '' OR r.product = ?1 ORDER BY r.published_at DESC", product))
}

// Withdraw implements fleet.Releases: a device says which release it has in progress,
// not which build, so there is no half of one.
func (s *Store) Withdraw(ctx context.Context, id int64, now time.Time) (r fleet.Release, err error) {
	err = s.write(ctx, func(t *tx) error {
		var builds []fleet.Release
		if r, builds, err = withBuilds(t, id); err != nil || r.State == fleet.ReleaseWithdrawn {
			return err
		}
		r.State = fleet.ReleaseWithdrawn
		for _, b := range builds {
			if _, err := t.Exec("UPDATE releases SET state = 'withdrawn', withdrawn_at = ? WHERE id = ?", micros(now), b.ID); err != nil {
				return err
			}
			if err := addEvent(t, fleet.Event{Time: now, Version: b.Version, Name: fleet.EventWithdrawn, Detail: b.Product + " " + b.Name(), Proven: true}); err != nil {
				return err
			}
		}
		return s.catalogueChanged(t)
	})
	if err != nil {
		return fleet.Release{}, err
	}
	return r, nil
}

// Generation implements fleet.Catalogue.
func (s *Store) Generation(ctx context.Context) (int64, error) {
	if !s.dialect.Replicas {
		return s.generation.Load(), nil
	}
	var generation int64
	err := s.db.Row(ctx, "SELECT generation FROM catalogue").Scan(&generation)
	return generation, s.db.Wrap("generation", err)
}

// Snapshot implements fleet.Catalogue.
func (s *Store) Snapshot(ctx context.Context) (generation int64, list []fleet.Release, err error) {
	err = s.db.Read(ctx, "catalogue", func(v Runner) error {
		if err := v.Row("SELECT generation FROM catalogue").Scan(&generation); err != nil {
			return err
		}
		list, err = listReleases(v, "")
		return err
	})
	return generation, list, err
}

// Collect scans rows to their end; the empty list is not nil, so that JSON has [].
func Collect[T any](scan func(Scanner) (T, error)) func(*sql.Rows, error) ([]T, error) {
	return func(rows *sql.Rows, err error) ([]T, error) {
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		list := []T{}
		for rows.Next() {
			v, err := scan(rows)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		return list, rows.Err()
	}
}
