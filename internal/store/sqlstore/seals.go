package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// CheckSeals opens all that is sealed. What it finds comes back as found, each with
// what to do; err is why it could not look.
func (s *Store) CheckSeals(ctx context.Context) (found []*fleet.Error, err error) {
	var sealed []byte
	switch err := s.db.Row(ctx, "SELECT sealed FROM seal WHERE id = 1").Scan(&sealed); {
	case errors.Is(err, sql.ErrNoRows):
		return nil, nil // nothing was ever sealed: the first start was cut short
	case err != nil:
		return nil, s.db.Wrap("check", err)
	}
	if err := s.openSeal(sealed); err != nil {
		return []*fleet.Error{err}, nil // none of the keys will open
	}
	type row struct {
		id, kind, owner, purpose string
		sealed                   []byte
	}
	scan := Collect(func(r Scanner) (k row, err error) { return k, r.Scan(&k.id, &k.kind, &k.owner, &k.purpose, &k.sealed) })
	var keys, tokens []row
	err = s.db.Read(ctx, "check", func(v Runner) error {
		if keys, err = scan(v.Query("SELECT id, owner_kind, owner, purpose, sealed FROM keys WHERE state = 'active' ORDER BY owner_kind, owner")); err != nil {
			return err
		}
		tokens, err = scan(v.Query("SELECT id, '', '', '', sealed FROM enrol_tokens WHERE revoked_at = 0 ORDER BY id"))
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, k := range keys {
		if _, err := s.openKey(k.sealed, k.purpose, k.kind, k.owner, k.id); err != nil {
			var f *fleet.Error
			if errors.As(err, &f) {
				found = append(found, f)
			}
		}
	}
	for _, k := range tokens {
		if _, err := s.seal.open(k.sealed, aboutKey(purposeEnrol, ownerToken, k.id, "")); err != nil {
			found = append(found, &fleet.Error{Code: fleet.CodeInternal, Message: fmt.Sprintf("the enrolment token %s can't be opened", k.id), Err: err,
				Hint: "it was altered in the database: revoke it and make another"})
		}
	}
	if _, err := s.StreamKey(ctx); err != nil && fleet.CodeOf(err) != fleet.CodeNotFound {
		var f *fleet.Error
		if !errors.As(err, &f) || f.Code != fleet.CodeInternal {
			return nil, err
		}
		found = append(found, f)
	}
	return found, nil
}
