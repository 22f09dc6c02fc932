package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// keepReports is how many names of reports are kept of each device: a device has a
// few on their way at most.
const keepReports = 32

// NativeKeys implements fleet.NativeDevices.
func (s *Store) NativeKeys(ctx context.Context, device string) (out fleet.NativeKeys, err error) {
	out.Device = device
	type row struct {
		id     string
		number uint8
		sealed []byte
	}
	var rows []row
	err = s.read(ctx, "native keys", func(v *view) error {
		var nonce int64
		err := v.row("SELECT product, native_nonce, native_boot, native_keys FROM devices WHERE id = ?", device).
			Scan(&out.Product, &nonce, &out.Boot, &out.Version)
		if err != nil {
			return noDevice(err, device)
		}
		out.Nonce = uint64(nonce)
		rows, err = collect(func(sc scanner) (r row, err error) { return r, sc.Scan(&r.id, &r.number, &r.sealed) })(
			v.query("SELECT id, number, sealed FROM keys WHERE owner_kind = 'device' AND owner = ? AND purpose = '"+purposeNative+"' AND state = 'active' ORDER BY created_at", device))
		return err
	})
	if err != nil {
		return fleet.NativeKeys{}, err
	}
	for _, r := range rows {
		secret, err := s.openKey(r.sealed, purposeNative, ownerDevice, device, r.id)
		if err != nil {
			return fleet.NativeKeys{}, err
		}
		out.Keys = append(out.Keys, fleet.NativeKey{Number: r.number, Secret: secret})
	}
	if len(out.Keys) == 0 {
		return fleet.NativeKeys{}, fleet.Errorf(fleet.CodeNotFound, "device %s has no native key", fleet.CleanText(device, fleet.MaxDeviceID))
	}
	return out, nil
}

// deployedBuild is the build of the signed release ?2 that device ?1 spoke of last. The
// joins are in this order: a release has a few builds, a device may have had many releases.
const deployedBuild = `SELECT q.release_id FROM releases a
 CROSS JOIN releases b ON b.product = a.product AND b.epoch = a.epoch AND b.sequence = a.sequence AND b.manifest_digest IS NOT NULL
 CROSS JOIN deployments q ON q.device = ?1 AND q.release_id = b.id WHERE a.id = ?2 ORDER BY q.proven DESC, q.updated_at DESC, q.release_id DESC LIMIT 1`

// NativePoll implements fleet.NativeDevices: one statement.
func (s *Store) NativePoll(ctx context.Context, device string, release int64) (fleet.NativeDevice, error) {
	var out fleet.NativeDevice
	var p fleet.Deployment
	var state, reason, version sql.NullString
	var proven sql.NullBool
	var id, started, updated sql.NullInt64
	d, err := scanDeviceAnd(s.readers.row(ctx, "SELECT "+deviceColumns+`, d.native_boot, d.native_verdict, d.native_keys, (SELECT generation FROM catalogue),
 p.release_id, p.state, p.reason, p.proven, p.started_at, p.updated_at, r.version
 FROM devices d LEFT JOIN deployments p ON p.device = d.id AND p.release_id = (`+deployedBuild+`) LEFT JOIN releases r ON r.id = p.release_id WHERE d.id = ?1`, device, release),
		&out.Boot, &out.Verdict, &out.KeysVersion, &out.Generation, &id, &state, &reason, &proven, &started, &updated, &version)
	if err != nil {
		return fleet.NativeDevice{}, wrap("poll", noDevice(err, device))
	}
	out.Device = d
	if state.Valid {
		p = fleet.Deployment{Device: device, ReleaseID: id.Int64, Version: version.String, State: fleet.DeploymentState(state.String), Reason: reason.String,
			Proven: proven.Bool, StartedAt: fromMicros(started.Int64), UpdatedAt: fromMicros(updated.Int64)}
		out.Deployment = &p
	}
	return out, nil
}

// TakePoll implements fleet.NativeDevices. The nonce is judged and stored by the
// first statement: whatever else is changed is changed once, whoever replays the
// poll to whichever replica.
func (s *Store) TakePoll(ctx context.Context, c fleet.NativeChange) (taken bool, err error) {
	if err := checkNonce(c.Nonce); err != nil {
		return false, err
	}
	err = s.w.Do(ctx, func(t *tx) error {
		n, err := affected(t.exec(`UPDATE devices SET native_nonce = ?1, native_boot = ?2, signed = 1, last_seen = max(last_seen, ?3),
 running_version = ?4, hardware = ?5, epoch = ?6, sequence = ?7, security_version = ?8, list_version = ?9, strongest_wire = ?10, native_verdict = ?11,
 slots = ?14, running_slot = ?15,
 rollback_sent_at = CASE WHEN ?12 AND rollback_wanted = 1 THEN ?3 ELSE rollback_sent_at END
 WHERE id = ?13 AND native_nonce < ?1`,
			int64(c.Nonce), c.Boot, micros(c.Now), c.Facts.RunningVersion, fleet.CleanText(c.Facts.Hardware, fleet.MaxText), c.Facts.Epoch, c.Facts.Sequence,
			c.Facts.SecurityVersion, c.Facts.ListVersion, string(c.Wire), c.Verdict, flag(c.RevertTold), c.Device, c.Facts.Slots, c.Facts.RunningSlot))
		if err != nil || n == 0 {
			return err
		}
		taken = true
		if c.Restarted {
			if _, err := t.exec("DELETE FROM native_reports WHERE device = ?", c.Device); err != nil {
				return err
			}
		}
		if c.Offered != 0 {
			if _, err := t.exec(`INSERT INTO deployments (device, release_id, state, chunks_received, chunks_total, verified, boot_status, reason, proven, started_at, updated_at)
 SELECT ?1, id, 'offered', 0, (size + chunk_size - 1) / chunk_size, 0, '', '', 1, ?3, ?3 FROM releases WHERE id = ?2 ON CONFLICT DO NOTHING`, c.Device, c.Offered, micros(c.Now)); err != nil {
				return err
			}
		}
		for _, e := range c.Events {
			if err := addEvent(t, e); err != nil {
				return err
			}
		}
		return retireOlder(t, c.Device, c.Key, c.Now)
	})
	if err != nil {
		return false, err
	}
	return taken, nil
}

// retireOlder forgets the native keys that were added before the one with that number.
func retireOlder(t *tx, device string, number uint8, now time.Time) error {
	n, err := affected(t.exec(`UPDATE keys SET state = 'retired', sealed = x'', retired_at = ?1
 WHERE owner_kind = 'device' AND owner = ?2 AND purpose = 'native' AND state = 'active' AND number <> ?3 AND
 created_at < (SELECT created_at FROM keys WHERE owner_kind = 'device' AND owner = ?2 AND purpose = 'native' AND state = 'active' AND number = ?3)`,
		micros(now), device, number))
	if err != nil || n == 0 {
		return err
	}
	if err := keysChanged(t, device); err != nil {
		return err
	}
	return addEvent(t, fleet.Event{Time: now, Device: device, Name: fleet.EventKeyRetired, Detail: fmt.Sprintf("it polls with key %d now", number), Proven: true})
}

// keysChanged makes every replica read the device's native keys again, with its next poll.
func keysChanged(t *tx, device string) error {
	_, err := t.exec("UPDATE devices SET native_keys = native_keys + 1 WHERE id = ?", device)
	return err
}

// TakeReport implements fleet.NativeDevices.
func (s *Store) TakeReport(ctx context.Context, rep fleet.NativeReport, now time.Time) error {
	if err := checkNonce(rep.Nonce); err != nil {
		return err
	}
	now = stored(now)
	return s.w.Do(ctx, func(t *tx) error {
		var lives bool
		if err := t.row("SELECT EXISTS (SELECT 1 FROM keys WHERE owner_kind = 'device' AND owner = ? AND purpose = 'native' AND state = 'active' AND number = ?)", rep.Device, rep.Key).Scan(&lives); err != nil {
			return err
		}
		if !lives {
			return fleet.Errorf(fleet.CodeUnauthenticated, "native key %d of %s does not live", rep.Key, fleet.CleanText(rep.Device, fleet.MaxDeviceID))
		}
		var content []byte
		err := t.row("SELECT content FROM native_reports WHERE device = ? AND boot = ? AND number = ?", rep.Device, rep.Boot, rep.Number).Scan(&content)
		if err == nil && string(content) == string(rep.Content[:]) {
			return nil
		}
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		was, err := scanDevice(t.row("SELECT "+deviceColumns+" FROM devices d WHERE d.id = ?", rep.Device))
		if err != nil {
			return noDevice(err, rep.Device)
		}
		n, err := affected(t.exec("UPDATE devices SET native_nonce = ?1 WHERE id = ?2 AND native_nonce < ?1 AND NOT ?3", int64(rep.Nonce), rep.Device, flag(rep.Stale)))
		if err != nil {
			return err
		}
		if n == 0 {
			return fleet.Errorf(fleet.CodeReplay, "nonce %d is not above %d, the last one of %s", rep.Nonce, was.NativeNonce, rep.Device)
		}
		if _, err := t.exec("DELETE FROM native_reports WHERE device = ? AND boot = ? AND number = ?", rep.Device, rep.Boot, rep.Number); err != nil {
			return err
		}
		if _, err := t.exec("INSERT INTO native_reports (device, boot, number, content) VALUES (?, ?, ?, ?)", rep.Device, rep.Boot, rep.Number, rep.Content[:]); err != nil {
			return err
		}
		if _, err := t.exec(`DELETE FROM native_reports WHERE device = ?1 AND id <=
 (SELECT id FROM native_reports WHERE device = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)`, rep.Device, keepReports); err != nil {
			return err
		}
		c, err := reported(t, was, rep)
		if err != nil {
			return err
		}
		d, dep, events := fleet.ApplyNativeReport(was, c.Release, c.Deployment, rep, now)
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

// reported finds the release that a report names.
func reported(t *tx, d fleet.Device, rep fleet.NativeReport) (c fleet.Candidate, err error) {
	if rep.Sequence == 0 {
		return c, nil
	}
	products, err := readProducts(t.row(productsQuery))
	if err != nil {
		return c, err
	}
	c, err = candidate(t, d.ID, "r.product = ? AND r.epoch = ? AND r.sequence = ? AND r.digest = ? AND r.manifest_digest IS NOT NULL",
		fleet.ProductOf(d, products), rep.Epoch, rep.Sequence, rep.Image[:])
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return c, err
}

// SaveNativeSeen implements fleet.NativeDevices.
func (s *Store) SaveNativeSeen(ctx context.Context, seen []fleet.NativeSeen) error {
	for _, v := range seen {
		if err := checkNonce(v.Nonce); err != nil {
			return err
		}
	}
	for part := range slices.Chunk(seen, seenBatch) {
		err := s.w.Do(ctx, func(t *tx) error {
			for _, v := range part {
				if _, err := t.exec(`UPDATE devices SET last_seen = max(last_seen, ?1),
 native_boot = CASE WHEN ?2 > native_nonce THEN ?3 ELSE native_boot END, native_nonce = max(native_nonce, ?2) WHERE id = ?4`,
					micros(v.At), int64(v.Nonce), v.Boot, v.Device); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// AddNativeDevice implements fleet.NativeKeyring.
func (s *Store) AddNativeDevice(ctx context.Context, d fleet.Device, native fleet.Key, v1 *fleet.Key, now time.Time) error {
	if err := fleet.ValidateDeviceID(d.ID); err != nil {
		return err
	}
	if d.Product != "" {
		if err := fleet.ValidateProduct(d.Product); err != nil {
			return err
		}
	}
	return s.w.Do(ctx, func(t *tx) error {
		if v1 != nil {
			if *v1 == native {
				return errSameKey()
			}
			// Before the device's row is there the key refers to nobody, which nothing forbids.
			if err := s.putKey(t, ownerDevice, d.ID, *v1, now); err != nil {
				return err
			}
		}
		detail := "with a native key"
		if v1 != nil {
			detail += " and a v1 key"
		}
		return s.addNative(t, d, native, fleet.EventDeviceAdded, detail, now)
	})
}

func errSameKey() error {
	return &fleet.Error{Code: fleet.CodeInvalid, Message: "the v1 key and the native key are the same", Hint: "each wire has a key of its own: v1 makes MACs over bytes that a publisher chose"}
}

// addNative makes a device known with native key 0.
func (s *Store) addNative(t *tx, d fleet.Device, key fleet.Key, event, detail string, now time.Time) error {
	if err := insertDevice(t, d, now); err != nil {
		return err
	}
	if err := s.insertKey(t, ownerDevice, d.ID, purposeNative, 0, key, now); err != nil {
		return err
	}
	return addEvent(t, fleet.Event{Time: now, Device: d.ID, Name: event, Detail: detail, Proven: true})
}

// AddNativeKey implements fleet.NativeKeyring.
func (s *Store) AddNativeKey(ctx context.Context, device string, key fleet.Key, now time.Time) (number uint8, err error) {
	err = s.w.Do(ctx, func(t *tx) error {
		var known bool
		if err := t.row("SELECT 1 FROM devices WHERE id = ?", device).Scan(&known); err != nil {
			return noDevice(err, device)
		}
		var live, last int
		var newest int64
		if err := t.row(`SELECT count(*) FILTER (WHERE state = 'active'), coalesce(max(created_at), 0) FROM keys
 WHERE owner_kind = 'device' AND owner = ? AND purpose = 'native'`, device).Scan(&live, &newest); err != nil {
			return err
		}
		err := t.row(`SELECT number FROM keys WHERE owner_kind = 'device' AND owner = ? AND purpose = 'native' ORDER BY created_at DESC LIMIT 1`, device).Scan(&last)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			last = -1
		case err != nil:
			return err
		}
		// The oldest that lives is in use, and the newest are on their way to the device: the
		// second oldest goes.
		for ; live >= fleet.MaxNativeKeys; live-- {
			if _, err := t.exec(`UPDATE keys SET state = 'retired', sealed = x'', retired_at = ?1 WHERE id =
 (SELECT id FROM keys WHERE owner_kind = 'device' AND owner = ?2 AND purpose = 'native' AND state = 'active' ORDER BY created_at LIMIT 1 OFFSET 1)`, micros(now), device); err != nil {
				return err
			}
		}
		number = uint8(last + 1)
		// The oldest may have this number, where 256 were added since.
		for {
			var taken bool
			err := t.row("SELECT 1 FROM keys WHERE owner_kind = 'device' AND owner = ? AND purpose = 'native' AND state = 'active' AND number = ?", device, number).Scan(&taken)
			if errors.Is(err, sql.ErrNoRows) {
				break
			}
			if err != nil {
				return err
			}
			number++
		}
		// Newer than all others, whatever the clock says: retireOlder goes by it.
		if at := fromMicros(newest + 1); now.Before(at) {
			now = at
		}
		if err := s.insertKey(t, ownerDevice, device, purposeNative, number, key, now); err != nil {
			return err
		}
		if err := keysChanged(t, device); err != nil {
			return err
		}
		return addEvent(t, fleet.Event{Time: now, Device: device, Name: fleet.EventKeyAdded, Detail: fmt.Sprintf("native key %d", number), Proven: true})
	})
	return number, err
}

// ResetWire implements fleet.NativeKeyring.
func (s *Store) ResetWire(ctx context.Context, device string, now time.Time) error {
	e := fleet.Event{Time: now, Name: fleet.EventWireReset, Detail: "it may speak any wire again"}
	return s.order(ctx, device, e, func(t *tx) (sql.Result, error) {
		return t.exec("UPDATE devices SET strongest_wire = '' WHERE id = ?", device)
	})
}
