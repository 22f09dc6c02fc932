package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// AddDevice implements fleet.Devices. key nil: the device has none of its own.
func (s *Store) AddDevice(ctx context.Context, d fleet.Device, key *fleet.Key, now time.Time) error {
	if err := fleet.ValidateDeviceID(d.ID); err != nil {
		return err
	}
	if d.Product != "" {
		if err := fleet.ValidateProduct(d.Product); err != nil {
			return err
		}
	}
	return s.write(ctx, func(t *tx) error {
		if err := insertDevice(t, d, now); err != nil {
			return err
		}
		detail := "without a key of its own"
		if key != nil {
			detail = "with a key of its own"
			if err := s.putKey(t, ownerDevice, d.ID, *key, now); err != nil {
				return err
			}
		}
		return addEvent(t, fleet.Event{Time: now, Device: d.ID, Name: fleet.EventDeviceAdded, Detail: detail, Proven: true})
	})
}

func insertDevice(t *tx, d fleet.Device, now time.Time) error {
	n, err := affected(t.Exec("INSERT INTO devices (id, product, added_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", d.ID, d.Product, micros(now)))
	if err == nil && n == 0 {
		err = fleet.Errorf(fleet.CodeConflict, "device %s exists already", d.ID)
	}
	return err
}

// affected is how many rows a statement changed.
func affected(res sql.Result, err error) (int64, error) {
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// Device implements fleet.Devices.
func (s *Store) Device(ctx context.Context, id string) (d fleet.Device, err error) {
	err = s.db.Read(ctx, "device", func(v Runner) error {
		d, err = scanDevice(v.Row("SELECT "+deviceColumns+" FROM devices d WHERE d.id = ?", id))
		if err != nil {
			return noDevice(err, id)
		}
		return assure(v, &d)
	})
	return d, err
}

func noDevice(err error, id string) error {
	return notFound(err, "no device is called %s", fleet.CleanText(id, fleet.MaxDeviceID))
}

// ListDevices implements fleet.Devices, in the order of ids.
func (s *Store) ListDevices(ctx context.Context) (list []fleet.Device, err error) {
	err = s.db.Read(ctx, "devices", func(v Runner) error {
		list, err = Collect(scanDevice)(v.Query("SELECT " + deviceColumns + " FROM devices d ORDER BY d.id"))
		if err != nil {
			return err
		}
		ds := make([]*fleet.Device, len(list))
		for i := range list {
			ds[i] = &list[i]
		}
		return assure(v, ds...)
	})
	return list, err
}

// assure sees whether devices without a key of their own have their product's.
func assure(v Runner, devices ...*fleet.Device) error {
	var products []string
	shared := map[string]bool{}
	read := false
	for _, d := range devices {
		if d.Assurance == fleet.AssuranceOwn {
			continue
		}
		if !read {
			var err error
			if products, err = productsOf(v); err != nil {
				return err
			}
			owners, err := Collect(func(row Scanner) (o string, err error) { return o, row.Scan(&o) })(
				v.Query("SELECT owner FROM keys WHERE owner_kind = 'product' AND purpose = ? AND state = 'active'", purposeV1))
			if err != nil {
				return err
			}
			for _, o := range owners {
				shared[o] = true
			}
			read = true
		}
		switch {
		case shared[fleet.ProductOf(*d, products)]:
			d.Assurance = fleet.AssuranceShared
		case d.NativeKeys > 0:
			d.Assurance = fleet.AssuranceOwn
		}
	}
	return nil
}

// SharedKeyDevices is how many devices have no key but their product's: as many as
// AssuranceShared says of ListDevices, without a list of all of them.
func (s *Store) SharedKeyDevices(ctx context.Context) (n int, err error) {
	const owners = "FROM keys WHERE owner_kind = 'product' AND purpose = '" + purposeV1 + "' AND state = 'active'"
	err = s.db.Read(ctx, "shared keys", func(v Runner) error {
		if err := v.Row("SELECT count(*) " + owners).Scan(&n); err != nil || n == 0 {
			return err
		}
		products, err := productsOf(v)
		if err != nil {
			return err
		}
		return v.Row("SELECT count(*) FROM devices d WHERE CASE d.product WHEN '' THEN ?1 ELSE d.product END IN (SELECT owner "+owners+`) AND d.strongest_wire IN ('', 'v1')
 AND NOT EXISTS (SELECT 1 FROM keys k WHERE k.owner_kind = 'device' AND k.owner = d.id AND k.purpose = '`+purposeV1+`' AND k.state = 'active')`,
			fleet.ProductOf(fleet.Device{}, products)).Scan(&n)
	})
	return n, err
}

// productsOf is what fleet.ProductOf wants to know: the first and the last
// product by name, which are one where there is one.
func productsOf(v Runner) ([]string, error) {
	return readProducts(v.Row(productsQuery))
}

// productOf is the product whose releases the device gets.
func productOf(t *tx, d fleet.Device) (string, error) {
	if d.Product != "" {
		return d.Product, nil
	}
	products, err := readProducts(t.Row(productsQuery))
	return fleet.ProductOf(d, products), err
}

const productsQuery = "SELECT (SELECT min(product) FROM releases), (SELECT max(product) FROM releases)"

func readProducts(row Scanner) ([]string, error) {
	var first, last sql.NullString
	if err := row.Scan(&first, &last); err != nil || !first.Valid {
		return nil, err
	}
	if first == last {
		return []string{first.String}, nil
	}
	return []string{first.String, last.String}, nil
}

// DeviceKey implements fleet.Devices.
func (s *Store) DeviceKey(ctx context.Context, id string) (key fleet.Key, a fleet.Assurance, err error) {
	err = s.db.Read(ctx, "device key", func(v Runner) error {
		a = fleet.AssuranceOwn
		key, err = s.key(v, ownerDevice, id)
		if !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		d := fleet.Device{ID: id}
		if err := v.Row("SELECT product FROM devices WHERE id = ?", id).Scan(&d.Product); err != nil {
			return noDevice(err, id)
		}
		products, err := productsOf(v)
		if err != nil {
			return err
		}
		product := fleet.ProductOf(d, products)
		a = fleet.AssuranceShared
		key, err = s.key(v, ownerProduct, product)
		return notFound(err, "device %s has no key, and neither has its product %s", id, product)
	})
	if err != nil {
		return fleet.Key{}, fleet.AssuranceNone, err
	}
	return key, a, nil
}

// SetProductKey implements fleet.Devices. The key before is forgotten.
func (s *Store) SetProductKey(ctx context.Context, product string, key fleet.Key, now time.Time) error {
	if err := fleet.ValidateProduct(product); err != nil {
		return err
	}
	return s.write(ctx, func(t *tx) error {
		if err := s.putKey(t, ownerProduct, product, key, now); err != nil {
			return err
		}
		return addEvent(t, fleet.Event{Time: now, Name: fleet.EventProductKey, Detail: "product " + product, Proven: true})
	})
}

// SaveSeen implements fleet.Devices. Devices that do not exist are passed over,
// and of what was seen before an operator reset a nonce, the nonce and the clock.
func (s *Store) SaveSeen(ctx context.Context, seen []fleet.Seen) error {
	for _, v := range seen {
		if err := checkNonce(v.Nonce); err != nil {
			return err
		}
	}
	// In pieces: reports wait for each, and not for those of a whole fleet that polled in a second.
	for part := range slices.Chunk(seen, seenBatch) {
		if err := s.saveSeen(ctx, part); err != nil {
			return err
		}
	}
	return nil
}

// seenBatch is as many devices as other writes may have to wait for, some 80 ms. Each COMMIT has
// every reader read its pages again, so pieces that are too small cost polls more than they
// save reports.
const seenBatch = 4096

func (s *Store) saveSeen(ctx context.Context, seen []fleet.Seen) error {
	return s.writeAlone(ctx, func(t *tx) error {
		for _, v := range seen {
			if _, err := t.Exec(`UPDATE devices SET
 last_seen = CASE WHEN ?1 > last_seen THEN ?1 ELSE last_seen END, heard = (SELECT clock FROM fleet_clock),
 signed    = CASE WHEN ?2 > 0 THEN 1 ELSE signed END,
 nonce     = CASE WHEN ?1 > nonce_reset_at AND ?2 > nonce THEN ?2 ELSE nonce END,
 clocked   = CASE WHEN ?1 > nonce_reset_at AND ?3 > clocked THEN ?3 ELSE clocked END,
 strongest_wire = CASE WHEN ?2 > 0 AND strongest_wire = '' THEN 'v1' ELSE strongest_wire END
 WHERE id = ?4`, micros(v.At), int64(v.Nonce), flag(v.Clocked), v.Device); err != nil {
				return err
			}
		}
		return nil
	})
}

// checkNonce: SQLite's integers end where a signed one does.
func checkNonce(n uint64) error {
	if n > math.MaxInt64 {
		return fleet.Errorf(fleet.CodeInvalid, "nonce %d is above %d", n, uint64(math.MaxInt64))
	}
	return nil
}

// order runs f for one device, with its event.
func (s *Store) order(ctx context.Context, device string, e fleet.Event, f func(*tx) (sql.Result, error)) error {
	return s.write(ctx, func(t *tx) error {
		if err := t.lockDevice(device); err != nil {
			return err
		}
		res, err := f(t)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil {
			return err
		} else if n == 0 {
			return noDevice(sql.ErrNoRows, device)
		}
		e.Device, e.Proven = device, true
		return addEvent(t, e)
	})
}

// orderBack has a device told to go back, for a reason.
const orderBack = "UPDATE devices SET rollback_wanted = 1, rollback_number = rollback_number + 1, rollback_reason = ?, rollback_sent_at = 0"

// OrderRollback implements fleet.Orders. Ordered again, the device is told again.
func (s *Store) OrderRollback(ctx context.Context, device, reason string, now time.Time) (devices int, err error) {
	reason = fleet.CleanText(reason, fleet.MaxText)
	detail := fleet.DefaultReason
	if reason != "" && reason != fleet.DefaultReason {
		detail += ": " + reason
	}
	detail = fleet.CleanText(detail, fleet.MaxText)
	if device != fleet.AllDevices {
		err = s.order(ctx, device, fleet.Event{Time: now, Name: fleet.EventRollback, Detail: detail}, func(t *tx) (sql.Result, error) {
			return t.Exec(orderBack+" WHERE id = ?", reason, device)
		})
		if err != nil {
			return 0, err
		}
		return 1, nil
	}
	err = s.write(ctx, func(t *tx) error {
		res, err := t.Exec(orderBack, reason)
		if err != nil {
			return err
		}
		n, err := res.RowsAffected()
		if err != nil {
			return err
		}
		devices = int(n)
		_, err = t.Exec(`INSERT INTO events (time, device, version, name, detail, proven) SELECT ?, id, '', ?, ?, 1 FROM devices`,
			micros(now), fleet.EventRollback, detail)
		return err
	})
	if err != nil {
		return 0, err
	}
	return devices, nil
}

// RollbackSent implements fleet.Orders.
func (s *Store) RollbackSent(ctx context.Context, device string, now time.Time) error {
	return s.writeAlone(ctx, func(t *tx) error {
		n, err := affected(t.Exec("UPDATE devices SET rollback_sent_at = CASE rollback_wanted WHEN 1 THEN ? ELSE 0 END WHERE id = ?", micros(now), device))
		if err == nil && n == 0 {
			err = noDevice(sql.ErrNoRows, device)
		}
		return err
	})
}

// OrderRetry implements fleet.Orders. The stamp is later than any that the
// device was shown and than all it did (fleet.RetryDue).
func (s *Store) OrderRetry(ctx context.Context, device string, now time.Time) error {
	e := fleet.Event{Time: now, Name: fleet.EventRetryOrdered}
	return s.order(ctx, device, e, func(t *tx) (sql.Result, error) {
		last, err := lastStamp(t)
		if err != nil {
			return nil, err
		}
		var did int64
		if err := t.Row("SELECT coalesce(max(CASE WHEN started_at > updated_at THEN started_at ELSE updated_at END), 0) FROM deployments WHERE device = ?", device).Scan(&did); err != nil {
			return nil, err
		}
		if d := fromMicros(did); d.After(last) {
			last = d
		}
		return t.Exec("UPDATE devices SET retry_at = ?, failures = 0 WHERE id = ?", micros(fleet.NextRetry(now, last)), device)
	})
}

// ResetNonce implements fleet.Orders.
func (s *Store) ResetNonce(ctx context.Context, device string, now time.Time) error {
	e := fleet.Event{Time: now, Name: fleet.EventNonceReset, Detail: fmt.Sprintf("nonce and clock of %s are forgotten", device)}
	return s.order(ctx, device, e, func(t *tx) (sql.Result, error) {
		return t.Exec("UPDATE devices SET nonce = 0, clocked = 0, nonce_reset_at = ? WHERE id = ?", micros(now), device)
	})
}
