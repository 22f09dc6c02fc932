package sqlstore

import (
	"context"
	"crypto/subtle"
	"database/sql"
	"errors"
	"time"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// maxTokens bounds what a check compares, and what an operator can oversee.
const maxTokens = 1000

const tokenColumns = "id, name, hash, created_at, revoked_at"

type tokenRow struct {
	fleet.Token
	hash []byte
}

func scanToken(row Scanner) (r tokenRow, err error) {
	var created, revoked int64
	err = row.Scan(&r.ID, &r.Name, &r.hash, &created, &revoked)
	r.CreatedAt, r.RevokedAt = fromMicros(created), fromMicros(revoked)
	return r, err
}

// AddToken implements fleet.Tokens.
func (s *Store) AddToken(ctx context.Context, name, token string, now time.Time) (out fleet.Token, err error) {
	hash, err := fleet.HashToken(token)
	if err != nil {
		return fleet.Token{}, fleet.Errorf(fleet.CodeInvalid, "this is no token of ours")
	}
	name = fleet.CleanText(name, fleet.MaxDeviceID)
	if name == "" {
		return fleet.Token{}, fleet.Errorf(fleet.CodeInvalid, "the token has no name")
	}
	err = s.write(ctx, func(t *tx) error {
		var n int
		if err := t.Row("SELECT count(*) FROM tokens WHERE revoked_at = 0").Scan(&n); err != nil {
			return err
		}
		if n >= maxTokens {
			return &fleet.Error{Code: fleet.CodeConflict, Message: "there are too many tokens", Hint: "revoke some"}
		}
		out = fleet.Token{Name: name, CreatedAt: stored(now)}
		err := t.Row("INSERT INTO tokens (name, hash, created_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING RETURNING id", name, hash[:], micros(now)).Scan(&out.ID)
		if errors.Is(err, sql.ErrNoRows) {
			return fleet.Errorf(fleet.CodeConflict, "this token exists already")
		}
		if err != nil {
			return err
		}
		return addEvent(t, fleet.Event{Time: now, Name: fleet.EventTokenAdded, Detail: name, Proven: true})
	})
	if err != nil {
		return fleet.Token{}, err
	}
	return out, nil
}

// CheckToken implements fleet.Tokens. It compares with every token in force, in
// constant time, so that its time says nothing of how near a guess came.
func (s *Store) CheckToken(ctx context.Context, token string) (out fleet.Token, err error) {
	hash, err := fleet.HashToken(token)
	if err != nil {
		return fleet.Token{}, err
	}
	var rows []tokenRow
	err = s.db.Read(ctx, "token", func(v Runner) error {
		rows, err = Collect(scanToken)(v.Query("SELECT " + tokenColumns + " FROM tokens WHERE revoked_at = 0"))
		return err
	})
	if err != nil {
		return fleet.Token{}, err
	}
	found := -1
	for i := range rows {
		found = subtle.ConstantTimeSelect(subtle.ConstantTimeCompare(rows[i].hash, hash[:]), i, found)
	}
	if found < 0 {
		return fleet.Token{}, fleet.Errorf(fleet.CodeUnauthenticated, "the token is not valid")
	}
	return rows[found].Token, nil
}

// ListTokens implements fleet.Tokens: all, revoked ones too, oldest first.
func (s *Store) ListTokens(ctx context.Context) (list []fleet.Token, err error) {
	err = s.db.Read(ctx, "tokens", func(v Runner) error {
		list, err = Collect(func(row Scanner) (fleet.Token, error) {
			r, err := scanToken(row)
			return r.Token, err
		})(v.Query("SELECT " + tokenColumns + " FROM tokens ORDER BY id"))
		return err
	})
	return list, err
}

// RevokeToken implements fleet.Tokens.
func (s *Store) RevokeToken(ctx context.Context, id int64, now time.Time) error {
	return s.write(ctx, func(t *tx) error {
		var name string
		err := t.Row("UPDATE tokens SET revoked_at = ? WHERE id = ? AND revoked_at = 0 RETURNING name", micros(now), id).Scan(&name)
		if err != nil {
			return notFound(err, "no token in force has the number %d", id)
		}
		return addEvent(t, fleet.Event{Time: now, Name: fleet.EventTokenRevoked, Detail: name, Proven: true})
	})
}
