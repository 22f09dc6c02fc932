package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// ownerToken is whose an enrolment token's secret is, in a sealed text's associated data.
const (
	ownerToken   = "token"
	purposeEnrol = "enrol"
)

const enrolTokenColumns = "id, product, pattern, count, used, approval, created_at, expires_at, revoked_at"

func scanEnrolTokenAnd(row Scanner, more ...any) (t fleet.EnrolToken, err error) {
	var created, expires, revoked int64
	err = row.Scan(append([]any{&t.ID, &t.Product, &t.Pattern, &t.Count, &t.Used, &t.Approval, &created, &expires, &revoked}, more...)...)
	t.CreatedAt, t.ExpiresAt, t.RevokedAt = fromMicros(created), fromMicros(expires), fromMicros(revoked)
	return t, err
}

func scanEnrolToken(row Scanner) (fleet.EnrolToken, error) { return scanEnrolTokenAnd(row) }

const enrolmentColumns = "token, device, device_nonce, server_nonce, hardware, status, time"

func scanEnrolment(row Scanner) (e fleet.Enrolment, err error) {
	var device, server []byte
	var at int64
	err = row.Scan(&e.Token, &e.Device, &device, &server, &e.Hardware, &e.Status, &at)
	copy(e.DeviceNonce[:], device)
	copy(e.ServerNonce[:], server)
	e.Time = fromMicros(at)
	return e, err
}

// AddEnrolToken implements fleet.EnrolTokens.
func (s *Store) AddEnrolToken(ctx context.Context, in fleet.EnrolToken, secret fleet.Key, now time.Time) (fleet.EnrolToken, error) {
	now = stored(now)
	in.Used, in.CreatedAt, in.ExpiresAt, in.RevokedAt = 0, now, stored(in.ExpiresAt), time.Time{}
	if err := fleet.ValidateEnrolToken(in, now); err != nil {
		return fleet.EnrolToken{}, err
	}
	sealed, err := s.seal.seal(secret[:], aboutKey(purposeEnrol, ownerToken, in.ID, ""))
	if err != nil {
		return fleet.EnrolToken{}, err
	}
	err = s.write(ctx, func(t *tx) error {
		var n int
		if err := t.Row("SELECT count(*) FROM enrol_tokens WHERE revoked_at = 0").Scan(&n); err != nil {
			return err
		}
		if n >= fleet.MaxEnrolTokens {
			return &fleet.Error{Code: fleet.CodeConflict, Message: "there are too many enrolment tokens", Hint: "revoke some"}
		}
		made, err := affected(t.Exec(`INSERT INTO enrol_tokens (id, sealed, product, pattern, count, approval, created_at, expires_at)
 VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`, in.ID, sealed, in.Product, in.Pattern, in.Count, flag(in.Approval), micros(now), micros(in.ExpiresAt)))
		if err != nil {
			return err
		}
		if made == 0 {
			return fleet.Errorf(fleet.CodeConflict, "token %s exists already", in.ID)
		}
		return addEvent(t, fleet.Event{Time: now, Name: fleet.EventEnrolToken, Proven: true,
			Detail: fmt.Sprintf("%s, for %d of %s", in.ID, in.Count, in.Product)})
	})
	if err != nil {
		return fleet.EnrolToken{}, err
	}
	return in, nil
}

// ListEnrolTokens implements fleet.EnrolTokens.
func (s *Store) ListEnrolTokens(ctx context.Context) (list []fleet.EnrolToken, err error) {
	err = s.db.Read(ctx, "enrolment tokens", func(v Runner) error {
		list, err = Collect(scanEnrolToken)(v.Query("SELECT " + enrolTokenColumns + " FROM enrol_tokens ORDER BY created_at, id"))
		return err
	})
	return list, err
}

// RevokeEnrolToken implements fleet.EnrolTokens.
func (s *Store) RevokeEnrolToken(ctx context.Context, id string, now time.Time) error {
	return s.write(ctx, func(t *tx) error {
		n, err := affected(t.Exec("UPDATE enrol_tokens SET revoked_at = ?, sealed = ? WHERE id = ? AND revoked_at = 0", micros(now), []byte{}, id))
		if err != nil {
			return err
		}
		if n == 0 {
			return fleet.Errorf(fleet.CodeNotFound, "no enrolment token in force is called %s", fleet.CleanText(id, fleet.MaxEnrolToken))
		}
		return addEvent(t, fleet.Event{Time: now, Name: fleet.EventEnrolToken, Detail: id + " is revoked", Proven: true})
	})
}

// WaitingEnrolments implements fleet.EnrolTokens.
func (s *Store) WaitingEnrolments(ctx context.Context) (list []fleet.Enrolment, err error) {
	err = s.db.Read(ctx, "enrolments", func(v Runner) error {
		list, err = Collect(scanEnrolment)(v.Query("SELECT " + enrolmentColumns + " FROM enrolments WHERE status = 'waiting' ORDER BY time, device, token"))
		return err
	})
	return list, err
}

// ApproveEnrolment implements fleet.EnrolTokens.
func (s *Store) ApproveEnrolment(ctx context.Context, device, token string, now time.Time) (e fleet.Enrolment, err error) {
	err = s.write(ctx, func(t *tx) error {
		const waits = " FROM enrolments WHERE device = ?1 AND status = 'waiting' AND (?2 = '' OR token = ?2)"
		var n int
		if err := t.Row("SELECT count(*)"+waits, device, token).Scan(&n); err != nil {
			return err
		}
		if n == 0 {
			return fleet.Errorf(fleet.CodeNotFound, "no device %s waits for approval", fleet.CleanText(device, fleet.MaxDeviceID))
		}
		if n > 1 {
			return &fleet.Error{Code: fleet.CodeConflict, Message: fmt.Sprintf("device %s waits by %d tokens", device, n), Hint: "say by which token, and find out who the others are"}
		}
		if e, err = scanEnrolment(t.Row("SELECT "+enrolmentColumns+waits, device, token)); err != nil {
			return err
		}
		e.Status = fleet.EnrolApproved
		if _, err := t.Exec("UPDATE enrolments SET status = 'approved' WHERE token = ? AND device = ?", e.Token, device); err != nil {
			return err
		}
		return addEvent(t, fleet.Event{Time: now, Device: device, Name: fleet.EventEnrolApproved, Detail: "token " + e.Token, Proven: true})
	})
	if err != nil {
		return fleet.Enrolment{}, err
	}
	return e, nil
}

// EnrolToken implements fleet.Enroller.
func (s *Store) EnrolToken(ctx context.Context, id string) (fleet.EnrolToken, fleet.Key, error) {
	var sealed []byte
	var secret fleet.Key
	t, err := scanEnrolTokenAnd(s.db.Row(ctx, "SELECT "+enrolTokenColumns+", sealed FROM enrol_tokens WHERE id = ? AND revoked_at = 0", id), &sealed)
	if err != nil {
		return fleet.EnrolToken{}, secret, s.db.Wrap("enrolment token", notFound(err, "no enrolment token in force is called %s", fleet.CleanText(id, fleet.MaxEnrolToken)))
	}
	text, err := s.seal.open(sealed, aboutKey(purposeEnrol, ownerToken, id, ""))
	if err != nil || len(text) != len(secret) {
		return fleet.EnrolToken{}, secret, &fleet.Error{Code: fleet.CodeInternal, Message: fmt.Sprintf("the secret of token %s can't be opened", id), Err: err,
			Hint: "it was altered in the database: revoke the token and make another"}
	}
	copy(secret[:], text)
	return t, secret, nil
}

// ServerNonce implements fleet.Enroller.
func (s *Store) ServerNonce(ctx context.Context, token, device string, deviceNonce [fleet.EnrolNonceSize]byte) (nonce [fleet.EnrolNonceSize]byte, found bool, err error) {
	var b []byte
	err = s.db.Row(ctx, "SELECT server_nonce FROM enrolments WHERE token = ? AND device = ? AND device_nonce = ?", token, device, deviceNonce[:]).Scan(&b)
	if errors.Is(err, sql.ErrNoRows) {
		return nonce, false, nil
	}
	copy(nonce[:], b)
	return nonce, err == nil, s.db.Wrap("enrolment", err)
}

// Enrol implements fleet.Enroller.
func (s *Store) Enrol(ctx context.Context, in fleet.Enrolment, key fleet.Key, now time.Time) (out fleet.Enrolment, err error) {
	if err := fleet.ValidateDeviceID(in.Device); err != nil {
		return fleet.Enrolment{}, err
	}
	now = stored(now)
	in.Hardware = fleet.CleanText(in.Hardware, fleet.MaxText)
	err = s.write(ctx, func(t *tx) error {
		c, err := enrolCase(t, in)
		if err != nil {
			return err
		}
		out = fleet.TakeEnrolment(c, in, now)
		if out.Status == fleet.EnrolRefused || c.Before != nil && c.Before.Status == out.Status && c.Before.DeviceNonce == in.DeviceNonce {
			return nil
		}
		if out.ServerNonce != in.ServerNonce {
			return fleet.Errorf(fleet.CodeConflict, "the enrolment has another nonce by now")
		}
		if _, err := t.Exec(`INSERT INTO enrolments (`+enrolmentColumns+`) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (token, device) DO UPDATE SET
 device_nonce = excluded.device_nonce, server_nonce = excluded.server_nonce, hardware = excluded.hardware, status = excluded.status, time = excluded.time`,
			out.Token, out.Device, out.DeviceNonce[:], out.ServerNonce[:], out.Hardware, string(out.Status), micros(out.Time)); err != nil {
			return err
		}
		if out.Status == fleet.EnrolWaiting {
			return addEvent(t, fleet.Event{Time: now, Device: out.Device, Name: fleet.EventEnrolWaits, Detail: "with token " + out.Token, Proven: true})
		}
		if _, err := t.Exec("UPDATE enrol_tokens SET used = used + 1 WHERE id = ?", out.Token); err != nil {
			return err
		}
		return s.addNative(t, fleet.Device{ID: out.Device, Product: c.Token.Product}, key, fleet.EventEnrolled, "with token "+out.Token, now)
	})
	if err != nil {
		return fleet.Enrolment{}, err
	}
	return out, nil
}

func enrolCase(t *tx, in fleet.Enrolment) (c fleet.EnrolCase, err error) {
	if c.Token, err = scanEnrolToken(t.Row("SELECT "+enrolTokenColumns+" FROM enrol_tokens WHERE id = ?", in.Token)); err != nil {
		return c, notFound(err, "no enrolment token is called %s", fleet.CleanText(in.Token, fleet.MaxEnrolToken))
	}
	before, err := scanEnrolment(t.Row("SELECT "+enrolmentColumns+" FROM enrolments WHERE token = ? AND device = ?", in.Token, in.Device))
	switch {
	case err == nil:
		c.Before = &before
	case !errors.Is(err, sql.ErrNoRows):
		return c, err
	}
	if err := t.Row("SELECT count(*) FROM enrolments WHERE token = ? AND device <> ? AND status IN ('waiting', 'approved')", in.Token, in.Device).Scan(&c.Open); err != nil {
		return c, err
	}
	var nonce int64
	err = t.Row("SELECT native_nonce FROM devices WHERE id = ?", in.Device).Scan(&nonce)
	switch {
	case err == nil:
		c.Known, c.Polled = true, nonce > 0
	case !errors.Is(err, sql.ErrNoRows):
		return c, err
	}
	return c, nil
}
