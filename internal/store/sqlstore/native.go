package sqlstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// keepReports is how many names of reports are kept of each device, and reportSlack how many
// more there may be before the old ones go, together: a device has a few on their way at most.
const (
	keepReports = 32
	reportSlack = 8
)

// nativeKeys is a row a key that lives, the oldest first; one without a key where there is none.
const nativeKeys = `SELECT d.product, d.native_nonce, d.native_boot, d.native_keys, coalesce(k.id, ''), coalesce(k.number, 0), k.sealed FROM devices d
 LEFT JOIN keys k ON k.owner_kind = 'device' AND k.owner = d.id AND k.purpose = '` + purposeNative + `' AND k.state = 'active' WHERE d.id = ? ORDER BY k.created_at`

// NativeKeys implements fleet.NativeDevices.
func (s *Store) NativeKeys(ctx context.Context, device string) (fleet.NativeKeys, error) {
	type row struct {
		id     string
		number uint8
		sealed []byte
	}
	out := fleet.NativeKeys{Device: device}
	var nonce int64
	var rows []row
	err := s.db.Read(ctx, "native keys", func(v Runner) (err error) {
		rows, err = Collect(func(sc Scanner) (r row, err error) {
			return r, sc.Scan(&out.Product, &nonce, &out.Boot, &out.Version, &r.id, &r.number, &r.sealed)
		})(v.Query(nativeKeys, device))
		if err == nil && len(rows) == 0 {
			err = noDevice(sql.ErrNoRows, device)
		}
		return err
	})
	if err != nil {
		return fleet.NativeKeys{}, err
	}
	out.Nonce = uint64(nonce)
	for _, r := range rows {
		if r.sealed == nil {
			return fleet.NativeKeys{}, fleet.Errorf(fleet.CodeNotFound, "device %s has no native key", fleet.CleanText(device, fleet.MaxDeviceID))
		}
		secret, err := s.openKey(r.sealed, purposeNative, ownerDevice, device, r.id)
		if err != nil {
			return fleet.NativeKeys{}, err
		}
		out.Keys = append(out.Keys, fleet.NativeKey{Number: r.number, Secret: secret})
	}
	return out, nil
}

// unnamed has columns without a declared type, and with a name of one letter: drivers copy both
// for each column at each query, which was a third of what a poll allocated.
func unnamed(columns string) string {
	list := strings.Split(columns, ",")
	for i, c := range list {
		list[i] = "coalesce(" + strings.TrimSpace(c) + ", NULL) AS c"
	}
	return strings.Join(list, ", ")
}

// NativePoll implements fleet.NativeDevices: one statement.
func (s *Store) NativePoll(ctx context.Context, device string, want fleet.Wanted) (fleet.NativeDevice, error) {
	text, args := s.texts.poll, []any{device, jsonIDs(want.Releases), jsonIDs(want.Rollouts)}
	if len(want.Releases)+len(want.Rollouts) == 0 {
		text, args = s.texts.pollBare, args[:1]
	}
	out, err := scanPoll(s.db.Row(ctx, text, args...))
	if err != nil {
		return fleet.NativeDevice{}, s.db.Wrap("poll", noDevice(err, device))
	}
	return out, nil
}

// scanPoll reads more columns behind a poll's.
func scanPoll(row Scanner, more ...any) (out fleet.NativeDevice, err error) {
	var deployments, usage string
	d, err := scanDeviceRow(row, append([]any{&out.Boot, &out.Verdict, &out.KeysVersion, &out.Generation, &out.Clock, &deployments, &usage}, more...)...)
	if err == nil {
		out.Device = d
		out.Deployments, err = parseDeployments(d.ID, deployments)
	}
	if err == nil {
		out.Usage, err = parseUsage(usage)
	}
	return out, err
}

// jsonIDs is a list of numbers as JSON.
func jsonIDs(ids []int64) string {
	if len(ids) == 0 {
		return "[]"
	}
	b := []byte{'['}
	for i, id := range ids {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, id, 10)
	}
	return string(append(b, ']'))
}

func parseDeployments(device, text string) (list []fleet.Deployment, err error) {
	if text == "[]" {
		return nil, nil
	}
	var rows [][]any
	if err := decodeRows(text, &rows); err != nil {
		return nil, err
	}
	for _, r := range rows {
		p := fleet.Deployment{Device: device}
		var proven, started, updated, phase, tries, heard, raw int64
		err := fill(r, &p.ReleaseID, &p.Version, (*string)(&p.State), &p.Reason, &proven, &started, &updated, &p.Rollout, &phase, (*string)(&p.Class), &tries, &heard, &raw)
		if err != nil {
			return nil, err
		}
		p.RawOnly, p.Proven, p.StartedAt, p.UpdatedAt = raw != 0, proven != 0, fromMicros(started), fromMicros(updated)
		p.Phase, p.Tries, p.Heard = int(phase), int(tries), fleet.Clock(heard)
		list = append(list, p)
	}
	return list, nil
}

func parseUsage(text string) (list []fleet.Usage, err error) {
	if text == "[]" {
		return nil, nil
	}
	var rows [][]any
	if err := decodeRows(text, &rows); err != nil {
		return nil, err
	}
	for _, r := range rows {
		var u fleet.Usage
		var joined, active int64
		if err := fill(r, &u.Rollout, &joined, &active, (*int64)(&u.NextAt)); err != nil {
			return nil, err
		}
		u.Joined, u.Active = int(joined), int(active)
		list = append(list, u)
	}
	return list, nil
}

// decodeRows reads rows that SQLite made JSON of, with integers as they are.
func decodeRows(text string, rows *[][]any) error {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	return d.Decode(rows)
}

// fill puts a row's values into texts and integers.
func fill(row []any, to ...any) error {
	if len(row) != len(to) {
		return fmt.Errorf("a row of %d columns, not %d", len(row), len(to))
	}
	for i, v := range row {
		switch p := to[i].(type) {
		case *string:
			s, ok := v.(string)
			if !ok {
				return fmt.Errorf("column %d is no text", i)
			}
			*p = s
		case *int64:
			n, ok := v.(json.Number)
			var err error
			if *p, err = n.Int64(); !ok || err != nil {
				return fmt.Errorf("column %d is no integer", i)
			}
		}
	}
	return nil
}

// TakePoll implements fleet.NativeDevices. The nonce is judged and stored by the
// first statement: whatever else is changed is changed once, whoever replays the
// poll to whichever replica.
func (s *Store) TakePoll(ctx context.Context, c fleet.NativeChange) (out fleet.Taken, err error) {
	if err := checkNonce(c.Nonce); err != nil {
		return out, err
	}
	err = s.writeAlone(ctx, func(t *tx) error {
		out = fleet.Taken{}
		if c.Admit != nil {
			if err := t.lockRollout(c.Admit.Rollout); err != nil {
				return err
			}
		}
		n, err := affected(t.Exec(`UPDATE devices SET native_nonce = ?1, native_boot = ?2, signed = 1, last_seen = CASE WHEN ?3 > last_seen THEN ?3 ELSE last_seen END,
 running_version = ?4, hardware = ?5, epoch = ?6, sequence = ?7, security_version = ?8, list_version = ?9, strongest_wire = ?10,
 slots = ?13, running_slot = ?14, ask = CASE ?15 WHEN '' THEN ask ELSE ?15 END, heard = (SELECT clock FROM fleet_clock), health = CASE ?17 WHEN '' THEN health ELSE ?17 END,
 rollback_sent_at = CASE WHEN ?11 = 1 AND rollback_wanted = 1 THEN ?3 ELSE rollback_sent_at END
 WHERE id = ?12 AND (native_nonce < ?1 OR ?16 = 1 AND native_nonce = ?1)`,
			int64(c.Nonce), c.Boot, micros(c.Now), c.Facts.RunningVersion, fleet.CleanText(c.Facts.Hardware, fleet.MaxText), c.Facts.Epoch, c.Facts.Sequence,
			c.Facts.SecurityVersion, c.Facts.ListVersion, string(c.Wire), flag(c.RevertTold), c.Device, c.Facts.Slots, c.Facts.RunningSlot, c.Facts.Ask, flag(c.Taken), c.Health.Text()))
		if err != nil || n == 0 {
			return err
		}
		out.Fresh = true
		if c.Restarted {
			if _, err := t.Exec("DELETE FROM native_reports WHERE device = ?", c.Device); err != nil {
				return err
			}
		}
		if c.Admit != nil {
			if out.Refused, err = admit(t, c.Device, *c.Admit, c.Now); err != nil {
				return err
			}
		}
		if c.Offered != 0 {
			if _, err := t.Exec(`INSERT INTO deployments (device, release_id, state, chunks_received, chunks_total, verified, boot_status, reason, proven, started_at, updated_at)
 SELECT ?1, id, 'offered', 0, (size + chunk_size - 1) / chunk_size, 0, '', '', 1, ?3, ?3 FROM releases WHERE id = ?2 ON CONFLICT DO NOTHING`, c.Device, c.Offered, micros(c.Now)); err != nil {
				return err
			}
		}
		for _, e := range c.Events {
			if out.Refused && e.Name == fleet.EventOffer {
				continue
			}
			if err := addEvent(t, e); err != nil {
				return err
			}
		}
		if !out.Refused {
			if err := decided(t, c); err != nil {
				return err
			}
		}
		return retireOlder(t, c.Device, c.Key, c.Now)
	})
	if err != nil {
		return fleet.Taken{}, err
	}
	return out, nil
}

// decided notes what the device was told, and keeps its last decisions.
func decided(t *tx, c fleet.NativeChange) error {
	if _, err := t.Exec("UPDATE devices SET native_verdict = ? WHERE id = ?", c.Verdict, c.Device); err != nil || c.Decision == nil {
		return err
	}
	return keepDecision(t, c.Device, *c.Decision)
}

func keepDecision(t *tx, device string, k fleet.KeptDecision) error {
	if _, err := t.Exec("INSERT INTO decisions (device, time, verdict, rollout, version, why) VALUES (?, ?, ?, ?, ?, ?)",
		device, micros(k.At), string(k.Verdict), k.Rollout, k.Version, k.Why); err != nil {
		return err
	}
	_, err := t.Exec(`DELETE FROM decisions WHERE device = ?1 AND id <= (SELECT id FROM decisions WHERE device = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)`, device, fleet.KeepDecisions)
	return err
}

// Admit implements fleet.RolloutDevices.
func (s *Store) Admit(ctx context.Context, device string, a fleet.Admission, k fleet.KeptDecision) (refused bool, err error) {
	err = s.writeAlone(ctx, func(t *tx) error {
		if err := t.lockRollout(a.Rollout); err != nil {
			return err
		}
		if err := t.lockDevice(device); err != nil {
			return err
		}
		if refused, err = admit(t, device, a, k.At); err != nil || refused {
			return err
		}
		if err := keepDecision(t, device, k); err != nil {
			return err
		}
		return addEvent(t, fleet.Event{Time: k.At, Device: device, Version: k.Version, Name: fleet.EventOffer, Detail: k.Why, Proven: true})
	})
	return refused || err != nil, err
}

// admit lets a device into a rollout, unless that moved since the decision or its
// last place is taken: here nobody else writes. A deployment that is under way
// already goes on as the rollout's.
func admit(t *tx, device string, a fleet.Admission, now time.Time) (refused bool, err error) {
	n, err := affected(t.Exec(`UPDATE rollouts AS o SET next_at = CASE WHEN ?1 = 0 THEN next_at WHEN next_at > (SELECT clock FROM fleet_clock) THEN next_at + ?1 ELSE (SELECT clock FROM fleet_clock) + ?1 END WHERE o.id = ?2 AND o.version = ?3 AND
 (?4 = 0 OR (SELECT count(*) FROM deployments u WHERE u.rollout = o.id AND u.device <> ?5) < ?4) AND
 (?6 = 0 OR (SELECT count(*) FROM deployments u WHERE `+t.s.texts.active+` AND u.device <> ?5) < ?6) AND
 (?1 = 0 OR next_at <= (SELECT clock FROM fleet_clock) + ?7)`,
		a.Hold.Microseconds(), a.Rollout, a.Version, a.Count, device, a.Concurrency, fleet.RateSlack.Microseconds()))
	if err != nil || n == 0 {
		return true, err
	}
	_, err = t.Exec(`INSERT INTO deployments (device, release_id, state, chunks_received, chunks_total, verified, boot_status, reason, proven, started_at, updated_at, rollout, phase, assurance, heard)
 SELECT ?1, id, 'offered', 0, (size + chunk_size - 1) / chunk_size, 0, '', '', CASE ?6 WHEN 'none' THEN 0 ELSE 1 END, ?3, ?3, ?4, ?5, ?6, (SELECT clock FROM fleet_clock) FROM releases WHERE id = ?2
 ON CONFLICT (device, release_id) DO UPDATE SET rollout = excluded.rollout, phase = excluded.phase, assurance = excluded.assurance, heard = excluded.heard,
  proven = CASE WHEN excluded.proven > deployments.proven THEN excluded.proven ELSE deployments.proven END,
  state = CASE WHEN deployments.proven = 0 OR deployments.state IN ('failed', 'reverted', 'cancelled', 'skipped') THEN 'offered' ELSE deployments.state END,
  started_at = CASE WHEN deployments.proven = 0 OR deployments.state IN ('failed', 'reverted', 'cancelled', 'skipped') THEN excluded.started_at ELSE deployments.started_at END`,
		device, a.ReleaseID, micros(now), a.Rollout, a.Phase, string(a.Assurance))
	return false, err
}

// retireOlder forgets the native keys that were added before the one with that number.
func retireOlder(t *tx, device string, number uint8, now time.Time) error {
	n, err := affected(t.Exec(`UPDATE keys SET state = 'retired', sealed = ?4, retired_at = ?1
 WHERE owner_kind = 'device' AND owner = ?2 AND purpose = 'native' AND state = 'active' AND number <> ?3 AND
 created_at < (SELECT created_at FROM keys WHERE owner_kind = 'device' AND owner = ?2 AND purpose = 'native' AND state = 'active' AND number = ?3)`,
		micros(now), device, number, []byte{}))
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
	_, err := t.Exec("UPDATE devices SET native_keys = native_keys + 1 WHERE id = ?", device)
	return err
}

// TakeReport implements fleet.NativeDevices.
func (s *Store) TakeReport(ctx context.Context, rep fleet.NativeReport, now time.Time) error {
	if err := checkNonce(rep.Nonce); err != nil {
		return err
	}
	now = stored(now)
	return s.writeAlone(ctx, func(t *tx) error {
		was, err := t.deviceToChange(rep.Device)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		// Not beside the device: there they would be as they were before its lock was had.
		var lives bool
		var content []byte
		var names int
		if err := t.Row(`SELECT EXISTS (SELECT 1 FROM keys WHERE owner_kind = 'device' AND owner = ?1 AND purpose = 'native' AND state = 'active' AND number = ?2),
 (SELECT content FROM native_reports WHERE device = ?1 AND boot = ?3 AND number = ?4), (SELECT count(*) FROM native_reports WHERE device = ?1)`,
			rep.Device, rep.Key, rep.Boot, rep.Number).Scan(&lives, &content, &names); err != nil {
			return err
		}
		switch {
		case !lives:
			return fleet.Errorf(fleet.CodeUnauthenticated, "native key %d of %s does not live", rep.Key, fleet.CleanText(rep.Device, fleet.MaxDeviceID))
		case string(content) == string(rep.Content[:]):
			return nil
		case rep.Stale || rep.Nonce <= was.NativeNonce:
			return fleet.Errorf(fleet.CodeReplay, "nonce %d is not above %d, the last one of %s", rep.Nonce, was.NativeNonce, rep.Device)
		}
		was.NativeNonce = rep.Nonce
		if err := nameReport(t, rep, content != nil, names); err != nil {
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

// nameReport keeps a report's name and content in the place of one that had the name, and
// forgets the oldest of names, all that were there before.
func nameReport(t *tx, rep fleet.NativeReport, had bool, names int) error {
	if had {
		if _, err := t.Exec("DELETE FROM native_reports WHERE device = ? AND boot = ? AND number = ?", rep.Device, rep.Boot, rep.Number); err != nil {
			return err
		}
	}
	if _, err := t.Exec("INSERT INTO native_reports (device, boot, number, content) VALUES (?, ?, ?, ?)", rep.Device, rep.Boot, rep.Number, rep.Content[:]); err != nil {
		return err
	}
	if names < keepReports+reportSlack {
		return nil
	}
	_, err := t.Exec(`DELETE FROM native_reports WHERE device = ?1 AND id <=
 (SELECT id FROM native_reports WHERE device = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)`, rep.Device, keepReports)
	return err
}

// reported finds the release that a report names.
func reported(t *tx, d fleet.Device, rep fleet.NativeReport) (c fleet.Candidate, err error) {
	if rep.Sequence == 0 {
		return c, nil
	}
	product, err := productOf(t, d)
	if err != nil {
		return c, err
	}
	c, err = candidate(t, d.ID, "r.product = ? AND r.epoch = ? AND r.sequence = ? AND r.digest = ? AND r.manifest_digest IS NOT NULL",
		product, rep.Epoch, rep.Sequence, rep.Image[:])
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return c, err
}

// seenNatively is what an idle poll teaches, by the parameters of when, its nonce, its boot counter and its health.
func seenNatively(at, nonce, boot, health string) string {
	return strings.NewReplacer("AT", at, "NONCE", nonce, "BOOT", boot, "HEALTH", health).Replace(`last_seen = CASE WHEN AT > last_seen THEN AT ELSE last_seen END, heard = (SELECT clock FROM fleet_clock),
 native_boot = CASE WHEN NONCE > native_nonce THEN BOOT ELSE native_boot END, native_nonce = CASE WHEN NONCE > native_nonce THEN NONCE ELSE native_nonce END,
 health = CASE HEALTH WHEN '' THEN health ELSE HEALTH END`)
}

// SaveNativeSeen implements fleet.NativeDevices.
func (s *Store) SaveNativeSeen(ctx context.Context, seen []fleet.NativeSeen) error {
	for _, v := range seen {
		if err := checkNonce(v.Nonce); err != nil {
			return err
		}
	}
	text := "UPDATE devices SET " + seenNatively("?1", "?2", "?3", "?5") + " WHERE id = ?4"
	for part := range slices.Chunk(seen, seenBatch) {
		err := s.writeAlone(ctx, func(t *tx) error {
			for _, v := range part {
				if _, err := t.Exec(text,
					micros(v.At), int64(v.Nonce), v.Boot, v.Device, v.Health.Text()); err != nil {
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
	return s.write(ctx, func(t *tx) error {
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
	err = s.write(ctx, func(t *tx) error {
		if err := t.lockDevice(device); err != nil {
			return err
		}
		var known bool
		if err := t.Row("SELECT 1 FROM devices WHERE id = ?", device).Scan(&known); err != nil {
			return noDevice(err, device)
		}
		var live, last int
		var newest int64
		if err := t.Row(`SELECT count(*) FILTER (WHERE state = 'active'), coalesce(max(created_at), 0) FROM keys
 WHERE owner_kind = 'device' AND owner = ? AND purpose = 'native'`, device).Scan(&live, &newest); err != nil {
			return err
		}
		err := t.Row(`SELECT number FROM keys WHERE owner_kind = 'device' AND owner = ? AND purpose = 'native' ORDER BY created_at DESC LIMIT 1`, device).Scan(&last)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			last = -1
		case err != nil:
			return err
		}
		// The oldest that lives is in use, and the newest are on their way to the device: the
		// second oldest goes.
		for ; live >= fleet.MaxNativeKeys; live-- {
			if _, err := t.Exec(`UPDATE keys SET state = 'retired', sealed = ?3, retired_at = ?1 WHERE id =
 (SELECT id FROM keys WHERE owner_kind = 'device' AND owner = ?2 AND purpose = 'native' AND state = 'active' ORDER BY created_at LIMIT 1 OFFSET 1)`, micros(now), device, []byte{}); err != nil {
				return err
			}
		}
		number = uint8(last + 1)
		// The oldest may have this number, where 256 were added since.
		for {
			var taken bool
			err := t.Row("SELECT 1 FROM keys WHERE owner_kind = 'device' AND owner = ? AND purpose = 'native' AND state = 'active' AND number = ?", device, number).Scan(&taken)
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
		return t.Exec("UPDATE devices SET strongest_wire = '' WHERE id = ?", device)
	})
}
