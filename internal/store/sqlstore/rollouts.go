package sqlstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/runnel-fota/runnel/internal/fleet"
)

var (
	_ fleet.Rollouts         = (*Store)(nil)
	_ fleet.RolloutEngine    = (*Store)(nil)
	_ fleet.RolloutCatalogue = (*Store)(nil)
	_ fleet.RolloutDevices   = (*Store)(nil)
	_ fleet.RolloutPolicies  = (*Store)(nil)
	_ fleet.Groups           = (*Store)(nil)
	_ fleet.Labels           = (*Store)(nil)
	_ fleet.Decisions        = (*Store)(nil)
)

const rolloutColumns = `o.id, o.product, o.release_id, r.version, o.course, o.created_at, o.version, o.state, o.phase, o.reason, o.began, o.passed, o.expected,
 o.reach, o.forgiven, o.changed_at`

const rolloutTables = " FROM rollouts o JOIN releases r ON r.id = o.release_id "

func scanRollout(row Scanner) (r fleet.Rollout, err error) {
	var course, forgiven string
	var created, changed int64
	err = row.Scan(&r.ID, &r.Product, &r.ReleaseID, &r.ReleaseVersion, &course, &created, &r.Version, &r.State, &r.Phase, &r.Reason, &r.Began, &r.Passed, &r.Expected,
		&r.Reach, &forgiven, &changed)
	if err == nil {
		err = json.Unmarshal([]byte(course), &r.Course)
	}
	if err == nil {
		err = json.Unmarshal([]byte(forgiven), &r.Forgiven)
	}
	r.CreatedAt, r.ChangedAt = fromMicros(created), fromMicros(changed)
	return r, err
}

// CreateRollout implements fleet.Rollouts.
func (s *Store) CreateRollout(ctx context.Context, r fleet.Rollout, now time.Time) (out fleet.Rollout, err error) {
	course, err := json.Marshal(r.Course)
	if err != nil {
		return out, err
	}
	err = s.write(ctx, func(t *tx) error {
		rel, err := scanRelease(t.Row("SELECT "+releaseColumns+" FROM releases r WHERE r.id = ?", r.ReleaseID))
		if err != nil {
			return notFound(err, "no release has the number %d", r.ReleaseID)
		}
		if rel.Product != r.Product || rel.State != fleet.ReleasePublished {
			e := &fleet.Error{Code: fleet.CodeConflict, Message: fmt.Sprintf("release %d is %s %s, %s: a rollout of %s needs one of its own that is published", rel.ID, rel.Product, rel.Version, rel.State, r.Product)}
			if rel.State == fleet.ReleaseDraft {
				e.Hint = fmt.Sprintf("'runnel releases publish %d' publishes it", rel.ID)
			}
			return e
		}
		var n int
		if err := t.Row("SELECT count(*) FROM rollouts WHERE product = ? AND state IN ("+inForce+")", r.Product).Scan(&n); err != nil {
			return err
		}
		if n >= fleet.MaxRollouts {
			return &fleet.Error{Code: fleet.CodeConflict, Message: fmt.Sprintf("%d rollouts of %s are in force, as many as may be", n, r.Product), Hint: "cancel those that are no longer wanted"}
		}
		var id int64
		err = t.Row(`INSERT INTO rollouts (product, release_id, course, created_at, version, state, phase, reason, began, passed, expected, reach, forgiven, changed_at)
 VALUES (?, ?, ?, ?4, 1, 'scheduled', 0, '', 0, 0, -1, 0, '{}', ?4) RETURNING id`, r.Product, r.ReleaseID, string(course), micros(now)).Scan(&id)
		if err != nil {
			return err
		}
		if out, err = scanRollout(t.Row("SELECT "+rolloutColumns+rolloutTables+"WHERE o.id = ?", id)); err != nil {
			return err
		}
		if err := addEvent(t, fleet.Event{Time: now, Version: rel.Version, Name: fleet.EventRollout, Detail: fmt.Sprintf("rollout %d of %s %s is made", id, r.Product, rel.Version), Proven: true}); err != nil {
			return err
		}
		return s.catalogueChanged(t)
	})
	if err != nil {
		return fleet.Rollout{}, err
	}
	return out, nil
}

// inForce are the states of fleet.RolloutState.InForce, as in the index.
const inForce = "'scheduled', 'running', 'paused', 'complete', 'reverting'"

// Rollout implements fleet.Rollouts.
func (s *Store) Rollout(ctx context.Context, id int64) (fleet.Rollout, error) {
	r, err := scanRollout(s.db.Row(ctx, "SELECT "+rolloutColumns+rolloutTables+"WHERE o.id = ?", id))
	return r, s.db.Wrap("rollout", notFound(err, "no rollout has the number %d", id))
}

// ListRollouts implements fleet.Rollouts.
func (s *Store) ListRollouts(ctx context.Context, product string) (list []fleet.Rollout, err error) {
	err = s.db.Read(ctx, "rollouts", func(v Runner) error {
		list, err = Collect(scanRollout)(v.Query("SELECT "+rolloutColumns+rolloutTables+"WHERE ?1 = '' OR o.product = ?1 ORDER BY o.id DESC", product))
		return err
	})
	return list, err
}

const activeRollouts = "SELECT " + rolloutColumns + rolloutTables + "WHERE o.state IN (" + inForce + ") ORDER BY o.id"

// ActiveRollouts implements fleet.RolloutEngine.
func (s *Store) ActiveRollouts(ctx context.Context) (list []fleet.Rollout, err error) {
	err = s.db.Read(ctx, "rollouts", func(v Runner) error {
		list, err = Collect(scanRollout)(v.Query(activeRollouts))
		return err
	})
	return list, err
}

// StepRollout implements fleet.Rollouts.
func (s *Store) StepRollout(ctx context.Context, r fleet.Rollout, effects []fleet.Effect, now time.Time) (done bool, err error) {
	forgiven, err := json.Marshal(r.Forgiven)
	if err != nil {
		return false, err
	}
	err = s.write(ctx, func(t *tx) error {
		done = false
		n, err := affected(t.Exec(`UPDATE rollouts SET version = ?1, state = ?2, phase = ?3, reason = ?4, began = ?5, passed = ?6, expected = ?7, reach = ?8, forgiven = ?9, changed_at = ?10
 WHERE id = ?11 AND version = ?1 - 1`, r.Version, string(r.State), r.Phase, r.Reason, int64(r.Began), int64(r.Passed), r.Expected, r.Reach, string(forgiven), micros(now), r.ID))
		if err != nil || n == 0 {
			return err
		}
		done = true
		for _, e := range effects {
			if err := s.effect(t, r, e, now); err != nil {
				return err
			}
		}
		return s.catalogueChanged(t)
	})
	return done && err == nil, err
}

func (s *Store) effect(t *tx, r fleet.Rollout, e fleet.Effect, now time.Time) error {
	if e.Event != "" {
		if err := addEvent(t, fleet.Event{Time: now, Version: r.ReleaseVersion, Name: e.Event, Detail: e.Detail, Proven: true}); err != nil {
			return err
		}
	}
	if e.Revert {
		if err := revertDevices(t, r, now); err != nil {
			return err
		}
	}
	if !e.Supersede {
		return nil
	}
	// Texts are compared, not what they take: two filters may say the same in other words, and the
	// older rollout then stays in force below the newer one, where it decides nothing.
	_, err := t.Exec(`UPDATE rollouts SET version = version + 1, state = 'superseded', reason = ?1, changed_at = ?2
 WHERE id < ?3 AND product = ?4 AND state IN ('scheduled', 'running', 'paused', 'complete') AND
 (?5 IN ('', 'true') OR `+t.s.dialect.json("course")+` ->> 'to' = ?5)`, fmt.Sprintf("rollout %d, of %s, is complete", r.ID, r.ReleaseVersion), micros(now), r.ID, r.Product, r.Course.To)
	return err
}

// runsByRollout: device d has confirmed the release of rollout ?1 by it, and nothing since.
const runsByRollout = ` p.rollout = ?1 AND p.state = 'confirmed' AND NOT EXISTS
 (SELECT 1 FROM deployments q WHERE q.device = p.device AND q.release_id <> p.release_id AND q.state = 'confirmed' AND q.updated_at > p.updated_at)`

// revertDevices orders those back that run the release by the rollout and have no order.
func revertDevices(t *tx, r fleet.Rollout, now time.Time) error {
	ids, err := Collect(func(row Scanner) (id string, err error) { return id, row.Scan(&id) })(
		t.Query("SELECT d.id FROM deployments p JOIN devices d ON d.id = p.device WHERE d.rollback_wanted = 0 AND "+runsByRollout+" ORDER BY d.id", r.ID))
	if err != nil {
		return err
	}
	reason := fleet.CleanText(fmt.Sprintf("rollout %d is taken back: %s", r.ID, r.Reason), fleet.MaxText)
	for _, id := range ids {
		if _, err := t.Exec(orderBack+" WHERE id = ?", reason, id); err != nil {
			return err
		}
		if err := addEvent(t, fleet.Event{Time: now, Device: id, Version: r.ReleaseVersion, Name: fleet.EventRollback, Detail: reason, Proven: true}); err != nil {
			return err
		}
	}
	return nil
}

// ForceDevice implements fleet.Rollouts.
func (s *Store) ForceDevice(ctx context.Context, rollout int64, device string, now time.Time) error {
	detail := fmt.Sprintf("rollout %d, whatever its phase and budgets say", rollout)
	if rollout == 0 {
		detail = "no rollout any more"
	}
	return s.write(ctx, func(t *tx) error {
		if rollout != 0 {
			var there bool
			if err := t.Row("SELECT 1 FROM rollouts WHERE id = ?", rollout).Scan(&there); err != nil {
				return notFound(err, "no rollout has the number %d", rollout)
			}
		}
		n, err := affected(t.Exec("UPDATE devices SET forced = ? WHERE id = ?", rollout, device))
		if err != nil {
			return err
		}
		if n == 0 {
			return noDevice(sql.ErrNoRows, device)
		}
		return addEvent(t, fleet.Event{Time: now, Device: device, Name: fleet.EventForced, Detail: detail, Proven: true})
	})
}

// CountRollout implements fleet.RolloutEngine. Only who has the image is looked up among
// the devices: a poll is a word of it. The rest is counted from an index; a download
// that does not move is not on its way, whatever else the device does by now.
func (s *Store) CountRollout(ctx context.Context, r fleet.Rollout, clock fleet.Clock) (list []fleet.Tally, err error) {
	err = s.db.Read(ctx, "count", func(v Runner) error {
		list, err = Collect(func(row Scanner) (t fleet.Tally, err error) {
			return t, row.Scan(&t.Phase, &t.State, &t.Class, &t.Tries, &t.Assurance, &t.Quiet, &t.Runs, &t.Ordered, &t.N)
		})(v.Query(`SELECT p.phase, p.state, p.class, p.tries, p.assurance,
 CASE WHEN p.state IN ('offered', 'downloading') THEN p.heard <= ?2
  WHEN p.state IN ('verifying', 'rebooting', 'trial', 'unproven') THEN p.heard <= ?2 AND (SELECT d.heard FROM devices d WHERE d.id = p.device) <= ?2 ELSE FALSE END,
 CASE WHEN ?3 = 1 THEN`+runsByRollout+` ELSE FALSE END,
 CASE WHEN ?3 = 1 AND p.state = 'confirmed' THEN (SELECT d.rollback_wanted FROM devices d WHERE d.id = p.device) ELSE 0 END, count(*)
 FROM deployments p WHERE p.rollout = ?1 GROUP BY 1, 2, 3, 4, 5, 6, 7, 8`, r.ID, int64(clock)-r.Course.Silence.Microseconds(), flag(r.State == fleet.RolloutReverting)))
		return err
	})
	return list, err
}

// Census implements fleet.RolloutEngine. The + keeps SQLite from going through the whole rollout
// for each device: a device has few deployments.
func (s *Store) Census(ctx context.Context, r fleet.Rollout, f func(d *fleet.Device, phase int)) error {
	return s.db.Read(ctx, "census", func(v Runner) error {
		rows, err := v.Query("SELECT "+deviceColumns+`, coalesce((SELECT p.phase FROM deployments p WHERE p.device = d.id AND +p.rollout = ?1 LIMIT 1), -1)
 FROM devices d WHERE d.product IN (?2, '')`, r.ID, r.Product)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var phase int
			d, err := scanDeviceAnd(rows, &phase)
			if err != nil {
				return err
			}
			f(&d, phase)
		}
		return rows.Err()
	})
}

// ReadClock implements fleet.RolloutEngine.
func (s *Store) ReadClock(ctx context.Context) (c fleet.Clock, wall time.Time, err error) {
	var at int64
	err = s.db.Row(ctx, "SELECT clock, wall FROM fleet_clock").Scan(&c, &at)
	return c, fromMicros(at), s.db.Wrap("clock", err)
}

// SaveClock implements fleet.RolloutEngine.
func (s *Store) SaveClock(ctx context.Context, from, to fleet.Clock, wall time.Time) (saved bool, err error) {
	if to < from {
		return false, fleet.Errorf(fleet.CodeInvalid, "the fleet's clock does not go back")
	}
	err = s.writeAlone(ctx, func(t *tx) error {
		n, err := affected(t.Exec("UPDATE fleet_clock SET clock = ?, wall = ? WHERE clock = ?", int64(to), micros(wall), int64(from)))
		saved = n > 0
		return err
	})
	return saved && err == nil, err
}

// RolloutSnapshot implements fleet.RolloutCatalogue.
func (s *Store) RolloutSnapshot(ctx context.Context) (out fleet.RolloutSnapshot, err error) {
	err = s.db.Read(ctx, "catalogue", func(v Runner) error {
		if err := v.Row("SELECT generation FROM catalogue").Scan(&out.Generation); err != nil {
			return err
		}
		if out.Rollouts, out.Groups, out.Only, err = rolloutsOf(v); err != nil {
			return err
		}
		out.Terms, err = termsOf(v)
		return err
	})
	return out, err
}

// rolloutsOf are those in force, and of those that ended the newest of each release and
// product: what a device has to drop, and that rollouts decide for the product.
func rolloutsOf(v Runner) (rollouts []fleet.Rollout, groups []fleet.Group, only []string, err error) {
	rollouts, err = Collect(scanRollout)(v.Query("SELECT " + rolloutColumns + rolloutTables + "WHERE o.state IN (" + inForce + `) OR
 o.id IN (SELECT max(id) FROM rollouts GROUP BY release_id) ORDER BY o.id DESC`))
	if err == nil {
		groups, err = Collect(scanGroup)(v.Query(groupQuery))
	}
	if err == nil {
		only, err = Collect(scanName)(v.Query(onlyQuery))
	}
	return rollouts, groups, only, err
}

const onlyQuery = "SELECT name FROM products WHERE rollouts_only = 1 ORDER BY name"

func scanName(row Scanner) (name string, err error) { return name, row.Scan(&name) }

// OnlyByRollout implements fleet.RolloutPolicies.
func (s *Store) OnlyByRollout(ctx context.Context, product string, only bool, now time.Time) error {
	if err := fleet.ValidateProduct(product); err != nil {
		return err
	}
	return s.write(ctx, func(t *tx) error {
		// Without a row the product takes unsigned images, and goes on to.
		if _, err := t.Exec(`INSERT INTO products (name, signed_only, rollouts_only, added_at, changed_at) VALUES (?1, 0, ?2, ?3, ?3)
 ON CONFLICT (name) DO UPDATE SET rollouts_only = excluded.rollouts_only, changed_at = excluded.changed_at`, product, flag(only), micros(now)); err != nil {
			return err
		}
		detail := product + " gives its newest release to all, until it has a rollout"
		if only {
			detail = product + " is moved by rollouts alone"
		}
		if err := addEvent(t, fleet.Event{Time: now, Name: fleet.EventPolicy, Detail: detail, Proven: true}); err != nil {
			return err
		}
		return s.catalogueChanged(t)
	})
}

// ByRollout implements fleet.RolloutPolicies.
func (s *Store) ByRollout(ctx context.Context) (list []string, err error) {
	err = s.db.Read(ctx, "policies", func(v Runner) error {
		list, err = Collect(scanName)(v.Query(onlyQuery))
		return err
	})
	return list, err
}

const groupQuery = "SELECT name, product, filter, changed_at FROM device_groups ORDER BY name"

func scanGroup(row Scanner) (g fleet.Group, err error) {
	var at int64
	err = row.Scan(&g.Name, &g.Product, &g.Filter, &at)
	g.ChangedAt = fromMicros(at)
	return g, err
}

// SetGroup implements fleet.Groups.
func (s *Store) SetGroup(ctx context.Context, g fleet.Group, now time.Time) (fleet.Group, error) {
	if err := fleet.ValidateGroup(g); err != nil {
		return fleet.Group{}, err
	}
	g.ChangedAt = stored(now)
	err := s.write(ctx, func(t *tx) error {
		if _, err := t.Exec(`INSERT INTO device_groups (name, product, filter, changed_at) VALUES (?, ?, ?, ?)
 ON CONFLICT (name) DO UPDATE SET product = excluded.product, filter = excluded.filter, changed_at = excluded.changed_at`, g.Name, g.Product, g.Filter, micros(now)); err != nil {
			return err
		}
		if err := addEvent(t, fleet.Event{Time: now, Name: fleet.EventGroup, Detail: fleet.CleanText("group "+g.Name+" is "+g.Filter, fleet.MaxText), Proven: true}); err != nil {
			return err
		}
		return s.catalogueChanged(t)
	})
	return g, err
}

// ListGroups implements fleet.Groups.
func (s *Store) ListGroups(ctx context.Context) (list []fleet.Group, err error) {
	err = s.db.Read(ctx, "groups", func(v Runner) error {
		list, err = Collect(scanGroup)(v.Query(groupQuery))
		return err
	})
	return list, err
}

// DeleteGroup implements fleet.Groups.
func (s *Store) DeleteGroup(ctx context.Context, name string, now time.Time) error {
	return s.write(ctx, func(t *tx) error {
		active, err := Collect(scanRollout)(t.Query(activeRollouts))
		if err != nil {
			return err
		}
		for _, r := range active {
			if slices.ContainsFunc(r.Course.Phases, func(p fleet.Phase) bool { return p.Group == name }) {
				return fleet.Errorf(fleet.CodeConflict, "rollout %d has group %s in a phase", r.ID, name)
			}
		}
		n, err := affected(t.Exec("DELETE FROM device_groups WHERE name = ?", name))
		if err != nil {
			return err
		}
		if n == 0 {
			return fleet.Errorf(fleet.CodeNotFound, "there is no group %q", fleet.CleanText(name, fleet.MaxDeviceID))
		}
		if err := addEvent(t, fleet.Event{Time: now, Name: fleet.EventGroup, Detail: "group " + name + " is deleted", Proven: true}); err != nil {
			return err
		}
		return s.catalogueChanged(t)
	})
}

// SetLabels implements fleet.Labels.
func (s *Store) SetLabels(ctx context.Context, device string, tags []string, attributes map[string]string, now time.Time) error {
	if err := fleet.ValidateTags(tags, attributes); err != nil {
		return err
	}
	var a, b []byte
	var err error
	if len(tags) > 0 {
		if a, err = json.Marshal(tags); err != nil {
			return err
		}
	}
	if len(attributes) > 0 {
		if b, err = json.Marshal(attributes); err != nil {
			return err
		}
	}
	e := fleet.Event{Time: now, Name: fleet.EventLabels, Detail: fleet.CleanText(fmt.Sprintf("tags %s, attributes %s", a, b), fleet.MaxText)}
	return s.order(ctx, device, e, func(t *tx) (sql.Result, error) {
		return t.Exec("UPDATE devices SET tags = ?, attributes = ? WHERE id = ?", string(a), string(b), device)
	})
}

// LastDecisions implements fleet.Decisions.
func (s *Store) LastDecisions(ctx context.Context, device string) (list []fleet.KeptDecision, err error) {
	err = s.db.Read(ctx, "decisions", func(v Runner) error {
		list, err = Collect(func(row Scanner) (k fleet.KeptDecision, err error) {
			var at int64
			err = row.Scan(&at, &k.Verdict, &k.Rollout, &k.Version, &k.Why)
			k.At = fromMicros(at)
			return k, err
		})(v.Query("SELECT time, verdict, rollout, version, why FROM decisions WHERE device = ? ORDER BY id DESC", device))
		return err
	})
	return list, err
}
