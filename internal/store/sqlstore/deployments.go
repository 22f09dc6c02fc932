package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/runnel-fota/runnel/internal/fleet"
)

const latestOrder = " ORDER BY p.proven DESC, p.started_at DESC, p.release_id DESC LIMIT 1"

// Deployment implements fleet.Deployments.
func (s *Store) Deployment(ctx context.Context, device string) (fleet.Deployment, error) {
	p, err := scanDeployment(s.db.Row(ctx, "SELECT "+deploymentColumns+deploymentTables+"WHERE p.device = ?"+latestOrder, device))
	return p, s.db.Wrap("deployment", notFound(err, "device %s has no deployment", fleet.CleanText(device, fleet.MaxDeviceID)))
}

// DeploymentOf implements fleet.Deployments.
func (s *Store) DeploymentOf(ctx context.Context, device string, releaseID int64) (fleet.Deployment, error) {
	p, err := scanDeployment(s.db.Row(ctx, "SELECT "+deploymentColumns+deploymentTables+"WHERE p.device = ? AND p.release_id = ?", device, releaseID))
	return p, s.db.Wrap("deployment", notFound(err, "device %s has no deployment of release %d", fleet.CleanText(device, fleet.MaxDeviceID), releaseID))
}

// ListDeployments implements fleet.Deployments.
func (s *Store) ListDeployments(ctx context.Context) (list []fleet.Deployment, err error) {
	err = s.db.Read(ctx, "deployments", func(v Runner) error {
		list, err = Collect(scanDeployment)(v.Query("SELECT " + deploymentColumns + ` FROM devices d
 JOIN deployments p ON p.device = d.id AND p.release_id =
   (SELECT release_id FROM deployments WHERE device = d.id ORDER BY proven DESC, started_at DESC, release_id DESC LIMIT 1)
 JOIN releases r ON r.id = p.release_id ORDER BY d.id`))
		return err
	})
	return list, err
}

// Report implements fleet.Deployments. What a nonce of a report without proof
// says is not believed, and so not stored.
func (s *Store) Report(ctx context.Context, device string, r *fleet.Release, rep fleet.Report, proven bool, nonce uint64, now time.Time) error {
	if err := checkNonce(nonce); err != nil {
		return err
	}
	now = stored(now)
	return s.writeAlone(ctx, func(t *tx) error {
		was, err := t.deviceToChange(device)
		if err != nil {
			return noDevice(err, device)
		}
		if fleet.WireV1.WeakerThan(was.StrongestWire) {
			return fleet.Errorf(fleet.CodeUnauthenticated, "device %s has spoken a stronger wire", device)
		}
		if proven {
			was.StrongestWire = fleet.WireV1
		}
		if proven && nonce > 0 {
			if nonce <= was.Nonce {
				return fleet.Errorf(fleet.CodeReplay, "nonce %d is not above %d, the last one of %s", nonce, was.Nonce, device)
			}
			was.Nonce = nonce
		}
		c, err := candidates(t, was, r, rep)
		if err != nil {
			return err
		}
		d, dep, events := fleet.TakeReport(was, c, rep, proven, now)
		if err := saveDevice(t, d); err != nil {
			return err
		}
		if dep.State != "" {
			if err := saveDeployment(t, dep); err != nil {
				return err
			}
		}
		for _, e := range events {
			if err := addEvent(t, e); err != nil {
				return err
			}
		}
		return nil
	})
}

// candidates looks up what fleet.TakeReport chooses from.
func candidates(t *tx, d fleet.Device, r *fleet.Release, rep fleet.Report) (c fleet.Candidates, err error) {
	if r != nil {
		// What is stored counts, not the caller's copy.
		if c.Offer, err = candidate(t, d.ID, "r.id = ?", r.ID); err != nil {
			return c, notFound(err, "no release has the number %d", r.ID)
		}
	}
	latest, err := scanDeployment(t.Row("SELECT "+deploymentColumns+deploymentTables+"WHERE p.device = ?"+latestOrder, d.ID))
	switch {
	case err != nil:
	case c.Offer.Release != nil && c.Offer.Release.ID == latest.ReleaseID:
		c.Latest = c.Offer
	default:
		c.Latest, err = candidate(t, d.ID, "r.id = ?", latest.ReleaseID)
	}
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return c, err
	}
	if v := rep.NewVersion; v != nil && fleet.ValidateVersion(*v) == nil && (c.Offer.Release == nil || c.Offer.Release.Version != *v) {
		product, err := productOf(t, d)
		if err != nil {
			return c, err
		}
		c.Named, err = candidate(t, d.ID, "r.product = ? AND r.version = ? ORDER BY r.published_at DESC LIMIT 1", product, *v)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return c, err
		}
	}
	return c, nil
}

// candidate reads a release and the device's deployment of it, if there is one.
func candidate(t *tx, device, where string, args ...any) (fleet.Candidate, error) {
	r, err := scanRelease(t.Row("SELECT "+releaseColumns+" FROM releases r WHERE "+where, args...))
	if err != nil {
		return fleet.Candidate{}, err
	}
	c := fleet.Candidate{Release: &r}
	p, err := scanDeployment(t.Row("SELECT "+deploymentColumns+deploymentTables+"WHERE p.device = ? AND p.release_id = ?", device, r.ID))
	if err == nil {
		c.Deployment = &p
	} else if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return c, err
}

// saveDevice stores what reports teach of a device that deviceToChange read.
func saveDevice(t *tx, d fleet.Device) error {
	_, err := t.Exec(`UPDATE devices SET last_seen = ?1, running_version = ?, nonce = ?, native_nonce = ?, signed = ?, strongest_wire = ?,
 rollback_wanted = ?, rollback_reason = ?, rollback_sent_at = ?, failures = ?,
 heard = CASE WHEN last_seen < ?1 THEN (SELECT clock FROM fleet_clock) ELSE heard END WHERE id = ?`,
		micros(d.LastSeen), d.RunningVersion, int64(d.Nonce), int64(d.NativeNonce), flag(d.Signed), string(d.StrongestWire),
		flag(d.RollbackWanted), d.RollbackReason, micros(d.RollbackSentAt), d.Failures, d.ID)
	return err
}

func saveDeployment(t *tx, p fleet.Deployment) error {
	_, err := t.Exec(`INSERT INTO deployments
 (device, release_id, state, chunks_received, chunks_total, verified, boot_status, reason, proven, started_at, updated_at, rollout, phase, class, tries, assurance, raw_only, heard)
 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, nullif(?, 0), ?, ?, ?, ?, ?, (SELECT clock FROM fleet_clock))
 ON CONFLICT (device, release_id) DO UPDATE SET state = excluded.state, chunks_received = excluded.chunks_received,
 chunks_total = excluded.chunks_total, verified = excluded.verified, boot_status = excluded.boot_status, reason = excluded.reason,
 proven = excluded.proven, started_at = excluded.started_at, updated_at = excluded.updated_at,
 rollout = excluded.rollout, phase = excluded.phase, class = excluded.class, tries = excluded.tries, assurance = excluded.assurance, raw_only = excluded.raw_only, heard = excluded.heard`,
		p.Device, p.ReleaseID, string(p.State), p.ChunksReceived, p.ChunksTotal, flag(p.Verified),
		p.BootStatus, p.Reason, flag(p.Proven), micros(p.StartedAt), micros(p.UpdatedAt), p.Rollout, p.Phase, string(p.Class), p.Tries, string(p.Assurance), flag(p.RawOnly))
	return err
}
